"""The page of `hashzoo serve` in a browser: what it does when people use it."""

from __future__ import annotations

import base64

import pytest

from tests.browsing import QUIET, asked_for, find, opened, out_of_reach
from tests.serve.conftest import MOST, png

for library in ("uvicorn", "starlette", "python_multipart"):
    pytest.importorskip(library, reason="the extra ui is not installed")
pytestmark = QUIET

ENTER, TAB = "\ue007", "\ue004"

#: A file of these bytes and this name is dropped on what a selector finds.
DROP = """
const [where, name, data] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([bytes], name, {type: "image/png"}));
document.querySelector(where).dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
"""


@pytest.fixture
def page(browser, port):
    return seen(opened(browser, f"http://127.0.0.1:{port}/"))


@pytest.fixture
def digit(tmp_path):
    """The path of the image of a seven."""
    (tmp_path / "seven.png").write_bytes(png(7))
    return str(tmp_path / "seven.png")


def seen(browser):
    """The browser, with a mark in its document that the next document does not have."""
    browser.execute_script("window.seen = true")
    return browser


def until(browser, title: str):
    """Wait for another document than the last one that was seen, loaded as a whole and with a title.

    The title alone may still be that of the document before, or be there before the elements are.
    """
    from selenium.common import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    state = "return !window.seen && document.readyState === 'complete' && document.title"
    # a script that meets the change of documents fails
    wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])
    wait.until(lambda one: one.execute_script(state) == f"{title} \u00b7 hashzoo")
    seen(browser)


def texts(browser, query: str) -> list[str]:
    return [found.text for found in browser.find_elements("css selector", query)]


def drop(browser, where: str, name: str, row: int) -> None:
    browser.execute_script(DROP, where, name, base64.b64encode(png(row)).decode())


def wide(browser) -> int:
    return browser.execute_script("return document.documentElement.scrollWidth")


def test_choosing_a_image_asks_at_once_and_a_click_asks_with_a_neighbour(page, port, digit):
    find(page, "#first").send_keys(digit)
    until(page, "Neighbors")
    assert texts(page, ".asked figcaption") == ["seven.png"]
    assert "7/7.png" in texts(page, ".hits small")
    seen = "return [...document.images].filter((e) => e.getBoundingClientRect().top < innerHeight)"
    assert page.execute_script(f"{seen}.every((e) => e.complete && e.naturalWidth > 0)")
    neighbour = texts(page, ".hits small")[3]
    page.find_elements("css selector", ".hits a")[3].click()
    until(page, "Neighbors")
    assert texts(page, ".asked figcaption") == [neighbour]
    assert page.get_log("browser") == []
    assert [url for url in asked_for(page) if not url.startswith((f"http://127.0.0.1:{port}/", "data:"))] == []


def test_an_image_is_dropped_anywhere_and_a_second_one_on_its_place(page):
    drop(page, "body", "one.png", 1)
    until(page, "Neighbors")
    assert texts(page, ".asked figcaption") == ["one.png"]
    find(page, "summary").send_keys(ENTER)
    drop(page, "header", "one.png", 1)
    drop(page, "details input", "two.png", 2)
    find(page, "details select").send_keys("only")
    find(page, "form button").send_keys(ENTER)
    until(page, "Neighbors")
    assert texts(page, ".asked > *") == ["one.png", "difference", "two.png"]
    assert page.get_log("browser") == []


def test_the_keyboard_alone_reaches_and_sends_everything(page, digit):
    page.execute_script("document.querySelector('details').open = true")
    assert out_of_reach(page) == []
    find(page, "#first").send_keys(digit)
    find(page, "select[name=top]").send_keys("12")
    page.switch_to.active_element.send_keys(TAB)
    page.switch_to.active_element.send_keys(ENTER)
    until(page, "Neighbors")
    assert len(texts(page, ".hits:first-of-type li")) == 24  # 12 of each index
    assert out_of_reach(page) == []


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(browser, port, digit, width):
    seen(opened(browser, f"http://127.0.0.1:{port}/", width))
    assert wide(browser) <= width
    find(browser, "#first").send_keys(digit)
    until(browser, "Neighbors")
    assert wide(browser) <= width


def test_an_image_that_is_too_large_is_refused_in_words(page, tmp_path):
    (tmp_path / "large.png").write_bytes(png(0) + bytes(8 * MOST))
    find(page, "#first").send_keys(str(tmp_path / "large.png"))
    until(page, "Error")
    assert texts(page, ".refusal") == ["The request is too large; the limit is 1 MiB."]

"""The page of `hashzoo report` in a browser: what it does when people use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hashzoo.report.page import PageOptions, render_page
from tests.browsing import QUIET, asked_for, find, out_of_reach
from tests.browsing import opened as at

pytestmark = QUIET


def opened(browser, text: str, folder: Path, width: int = 1280):
    """The page in the browser."""
    (folder / "report.html").write_text(text, encoding="utf-8")
    return at(browser, (folder / "report.html").as_uri(), width)


@pytest.fixture
def opened_page(browser, html, tmp_path):
    return opened(browser, html, tmp_path)


def names(browser) -> list[str]:
    """The methods of the rows in sight, from above."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.board tbody tr')].filter((r) => r.offsetParent)"
        ".map((r) => r.querySelector('.n').textContent)"
    )


def test_nothing_leaves_the_page_and_the_console_is_silent(opened_page):
    find(opened_page, ".board th:nth-child(3) button").click()
    assert [url for url in asked_for(opened_page) if not url.startswith(("file:", "data:"))] == []
    assert opened_page.get_log("browser") == []


def test_the_policy_stops_a_request_that_a_script_would_make(opened_page):
    script = "const done = arguments[0]; fetch('https://example.org/').then(() => done('sent'), () => done('stopped'))"
    assert opened_page.execute_async_script(script) == "stopped"
    assert any("Content Security Policy" in one["message"] for one in opened_page.get_log("browser"))


def test_rows_are_sorted_by_a_click_and_by_the_keyboard(opened_page):
    header = find(opened_page, ".board th:nth-child(3)")
    button = find(opened_page, ".board th:nth-child(3) button")
    assert names(opened_page)[0] != "chance"
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert names(opened_page) == sorted(names(opened_page))
    button.send_keys("\ue007")  # Enter
    assert header.get_attribute("aria-sort") == "descending"
    assert names(opened_page) == sorted(names(opened_page), reverse=True)
    find(opened_page, ".board th.num:nth-child(4) button").click()
    assert header.get_attribute("aria-sort") == "none"
    scores = opened_page.execute_script(
        "return [...document.querySelectorAll('.board tbody tr:not(.out) .main')].map((c) => Number(c.dataset.v))"
    )
    assert scores == sorted(scores, reverse=True)


def test_rows_are_filtered_by_text_bits_kind_supervision_and_role(opened_page):
    from selenium.webdriver.support.ui import Select

    bits, kind, supervision = (Select(find(opened_page, f"#{name}")) for name in ("scope-b", "kind", "supervision"))
    bits.select_by_value("")
    assert len(names(opened_page)) == 7
    bits.select_by_value("8")
    assert sorted(names(opened_page)) == ["chance", "itq", "lsh"]
    bits.select_by_value("16")
    find(opened_page, "#find").send_keys("SF")
    assert names(opened_page) == ["sfdh"]
    assert find(opened_page, "#count").text == "1 of 7 rows"
    find(opened_page, "#find").clear()
    find(opened_page, "#find").send_keys(" ")
    kind.select_by_visible_text("shallow")
    supervision.select_by_value("none")
    find(opened_page, "#controls").click()
    assert sorted(names(opened_page)) == ["itq", "lsh"]


def test_methods_are_compared_and_put_away_and_keep_their_colour(opened_page):
    def shown():
        return opened_page.execute_script(
            "return [...document.querySelectorAll('#gallery .found')].filter((e) => e.offsetParent)"
            ".map((e) => e.querySelector('.n').textContent)"
        )

    assert set(shown()) == {"itq", "lsh", "sfdh", "chance"}
    colour = find(opened_page, "tr:not(.out) .pick input:checked")
    row = colour.find_element("xpath", "ancestor::tr")
    name = row.find_element("css selector", ".n").text
    before = row.get_attribute("class")
    colour.click()
    assert name not in shown()
    assert name not in find(opened_page, "#chips").text
    row.find_element("css selector", ".pick input").send_keys(" ")
    assert row.get_attribute("class") == before
    assert name in shown()
    find(opened_page, "#chips button").send_keys("\ue007")
    assert len(set(shown())) == 3


def test_the_gallery_shows_its_images_and_says_in_words_which_are_relevant(opened_page):
    sizes = opened_page.execute_script(
        "return [...document.querySelectorAll('#gallery .found li svg')].filter((e) => e.checkVisibility())"
        ".map((e) => [e.querySelector('use').getBBox().width, e.getAttribute('aria-label'), e.parentElement.className])"
    )
    assert len(sizes) == 3 * 4 * 10  # queries, methods, places
    assert all(width > 0 for width, _, _ in sizes)
    assert all(said.startswith("relevant" if kind == "hit" else "not relevant") for _, said, kind in sizes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(width, scheme, browser, html, tmp_path):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened(browser, html, tmp_path, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_names_that_would_be_html_do_nothing(browser, hostile, tmp_path):
    opened(browser, render_page(hostile, PageOptions(gallery=2, explained=("none",))), tmp_path, 360)
    assert browser.execute_script("return window.broken === undefined")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert any("onerror" in name for name in names(browser))
    assert browser.get_log("browser") == []


def test_every_data_set_has_its_say_in_brief_whatever_bits_are_chosen(browser, hostile, tmp_path):
    from selenium.webdriver.support.ui import Select

    opened(browser, render_page(hostile, PageOptions(gallery=0, explained=["none"])), tmp_path)
    Select(find(browser, "#scope-d")).select_by_value("1")  # the one of two lengths
    for bits, cards in (("8", [("0", "16"), ("1", "8"), ("2", "16")]), ("16", [("0", "16"), ("1", "16"), ("2", "16")])):
        Select(find(browser, "#scope-b")).select_by_value(bits)
        shown = browser.execute_script(
            "return [...document.querySelectorAll('.card')].filter((c) => c.offsetParent)"
            ".map((c) => [c.dataset.of, c.dataset.b])"
        )
        assert [tuple(one) for one in shown] == cards


def test_every_control_can_be_reached_by_the_keyboard_and_has_a_name(opened_page):
    assert out_of_reach(opened_page) == []

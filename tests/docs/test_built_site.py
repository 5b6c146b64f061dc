"""The built documentation: its search finds the page that answers, and no name becomes an address of mail.

The folder of a build is given by HASHZOO_DOCS, as .ci/run does; without it these tests skip.
"""

from __future__ import annotations

import functools
import html
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.browsing import QUIET, opened
from tests.docs.test_documentation import SEARCHED

pytestmark = QUIET


class Silent(http.server.SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Path:
    folder = Path(os.environ.get("HASHZOO_DOCS", "")).absolute()
    if not (folder / "searchindex.js").is_file():
        pytest.skip("needs a build of the documentation: sphinx-build docs FOLDER, and HASHZOO_DOCS=FOLDER")
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def found(browser, address: str, word: str) -> list[str]:
    """The first three pages that the search of the site lists, without anchors."""
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, f"{address}/search.html?q={quote(word)}")
    # Sphinx lists the results one by one, and then says that it finished
    done = "return (document.querySelector('#search-results > p') || {}).textContent || ''"
    WebDriverWait(browser, 60).until(lambda one: re.search(r"finished|found|did not match", one.execute_script(done)))
    links = browser.execute_script("return [...document.querySelectorAll('ul.search > li > a')].map((a) => a.href)")
    pages = [urlsplit(link).path.strip("/").removesuffix(".html") for link in links]
    return list(dict.fromkeys(pages))[:3]


@pytest.mark.parametrize("word", SEARCHED)
def test_the_search_of_the_site_lists_the_page_that_answers_among_the_first_three(word, browser, address):
    assert SEARCHED[word] in found(browser, address, word)


def test_no_name_with_an_at_sign_is_an_address_of_mail(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    assert [page.name for page in pages if "mailto:" in page.read_text(encoding="utf-8")] == []
    assert "map@all" in html.unescape((site / "reference" / "commands.html").read_text(encoding="utf-8"))

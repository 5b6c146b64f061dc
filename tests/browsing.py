"""Debian's chromium, for tests of pages: what it shows, says in its console, and asks for."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

#: Selenium leaves sockets to the collector.
QUIET = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def started() -> Iterator[Any]:
    """A browser with a profile of its own; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'hashzoo[browser]'")
    from selenium.webdriver.chrome.service import Service

    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs Debian's chromium and chromium-driver, or Chrome and its driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser = webdriver.Chrome(options=options, service=Service(driver))
        yield browser
        browser.quit()


def opened(browser: Any, address: str, width: int = 1280) -> Any:
    """An address in the browser; what it said in the console and asked for until then is forgotten."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(address)
    return browser


def asked_for(browser: Any) -> list[str]:
    """The addresses that the page made the browser ask for."""
    logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"]["request"]["url"] for one in logged if one["method"] == "Network.requestWillBeSent"]


def find(browser: Any, query: str) -> Any:
    """The first element of a CSS selector."""
    return browser.find_element("css selector", query)


def out_of_reach(browser: Any) -> list[str]:
    """Controls in sight that the keyboard does not reach, or that have no name."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('a, button, input, select, summary, [tabindex]')]"
        ".filter((e) => e.checkVisibility() && !e.disabled)"
        ".filter((e) => e.tabIndex < 0 || (e.matches('input, select') && !e.labels.length && !e.ariaLabel))"
        ".map((e) => e.outerHTML)"
    )
    return found

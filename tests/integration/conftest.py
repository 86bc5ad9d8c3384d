"""What integration tests share: a Prefect server, and a headless Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.conftest import made_once
from tests.integration.project import make_project, repro
from tests.integration.toy import prefect_server


@pytest.fixture(scope="session")
def api(databases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server; the variables that lead to it."""
    home = shutil.copytree(databases / "prefect", tmp_path_factory.mktemp("api") / "prefect")
    with prefect_server(home) as variables:
        yield variables


@pytest.fixture(scope="session")
def prepared(digits: Path) -> Path:
    """A project in which everything before tune has run."""

    def make(folder: Path) -> None:
        make_project(folder, digits)
        repro(folder, "ingest", "augment", "start")

    return made_once("prepared", make)


QUIET = [  # a browser that asks nobody but for the pages that a test opens
    "--headless=new",
    "--no-sandbox",  # Chromium refuses to sandbox itself as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


OWN = ("chrome:", "chrome-untrusted:", "about:")  # Chromium's own pages: its start page loads when it likes


class Browser:
    """Chromium with what tests ask of it. `driver` is the selenium driver itself."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Load `address` in a window of exactly this size, and forget what was logged before."""
        self.requests()
        self.console_errors()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(address)

    def requests(self) -> list[str]:
        """The addresses asked for since the last call, the page's own among them. What is inside the page
        (data:, blob:) or the browser is left out."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        addresses = [str(params["request"]["url"]) for params in sent]
        return [address for address in addresses if not address.startswith(("data:", "blob:", *OWN))]

    def console_errors(self) -> list[str]:
        """What the console has said at level SEVERE since the last call, of pages that are not the browser's."""
        errors = [str(e["message"]) for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]
        return [error for error in errors if not error.startswith(OWN)]

    def evaluate(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript `return` statement in the page."""
        return self.driver.execute_script(script, *arguments)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    """A fresh browser with an empty profile. Fails where Debian's Chromium is not installed."""
    binary, service = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.fail("install Debian's chromium and chromium-driver to run the tests of pages", pytrace=False)
    options = ChromeOptions()
    options.binary_location = binary
    for argument in [*QUIET, f"--user-data-dir={tmp_path / 'chromium'}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(service))
    try:
        yield Browser(driver)
    finally:
        driver.quit()

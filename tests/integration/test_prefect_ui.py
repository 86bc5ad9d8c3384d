"""Prefect's page of a run, in a real browser: the stages are there, and nobody else is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

from tests.integration.conftest import Browser
from tests.integration.toy import last_flow_run, make_toy, modelpress, prefect_server, task_runs

pytestmark = pytest.mark.slow

STAGES = ["ingest", "train", "prune@0.5", "prune@0.25", "evaluate"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server with the pages of two runs: one that did everything, one that found nothing to do."""
    toy = make_toy(tmp_path_factory.mktemp("ui") / "toy")
    with prefect_server(tmp_path_factory.mktemp("prefect")) as variables:
        modelpress(toy, "run", check=True, **variables)
        yield variables


def wait_for_text(browser: Browser, *texts: str) -> str:
    """The page's text as soon as all `texts` are in it."""

    def text() -> str:
        return str(browser.evaluate("return document.body.innerText"))

    shown: Callable[[object], bool] = lambda _: all(t in text() for t in texts)  # noqa: E731
    try:
        WebDriverWait(browser.driver, 60, poll_frequency=0.2).until(shown)
    except TimeoutException:
        raise AssertionError(f"{texts} expected in the page:\n{text()}") from None
    return text()


def test_page_of_a_run_shows_the_stages_and_asks_only_its_server(
    api: dict[str, str], chromium: Browser
) -> None:
    server = api["PREFECT_API_URL"].removesuffix("/api")
    run = last_flow_run(api)
    task_runs(api, run["id"], len(STAGES))
    chromium.open(f"{server}/runs/flow-run/{run['id']}?tab=Task%20Runs")
    wait_for_text(chromium, run["name"], *STAGES)
    chromium.open(f"{server}/runs/flow-run/{run['id']}?tab=Logs")
    wait_for_text(chromium, "train 3/3: loss 0.333")
    chromium.open(f"{server}/artifacts/key/summary")
    wait_for_text(chromium, "summary", "Stages: 5 ran")
    asked = chromium.requests()
    assert asked
    assert all(address.startswith(server) for address in asked), asked
    assert chromium.console_errors() == []

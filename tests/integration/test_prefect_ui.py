"""Prefect's page of a run, in a real browser: the stages are there, and nobody else is asked."""

from __future__ import annotations

from pathlib import Path

from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

from tests.integration.conftest import Browser
from tests.integration.toy import ask, last_flow_run, modelpress, task_runs

STAGES = ["ingest", "train", "prune@0.5", "prune@0.25", "evaluate"]


def wait_for_text(browser: Browser, *texts: str) -> str:
    """The page's text as soon as all `texts` are in it."""

    def text() -> str:
        return str(browser.evaluate("return document.body.innerText"))

    def shown(_: object) -> bool:
        whole = text()
        return all(t in whole for t in texts)

    try:
        WebDriverWait(browser.driver, 180, poll_frequency=0.2).until(shown)
    except TimeoutException:
        raise AssertionError(f"{texts} expected in the page:\n{text()}") from None
    return text()


def test_pages_of_a_run_show_it_and_ask_only_their_server(
    api: dict[str, str], chromium: Browser, toy: Path
) -> None:
    modelpress(toy, "run", check=True, **api)
    run = last_flow_run(api)
    task_runs(api, run["id"], len(STAGES))
    mine = {"flow_runs": {"id": {"any_": [run["id"]]}}, "artifacts": {"key": {"any_": ["summary"]}}}
    (summary,) = ask(api, "/artifacts/filter", mine)
    server = api["PREFECT_API_URL"].removesuffix("/api")
    for page, texts in {
        f"runs/flow-run/{run['id']}?tab=Task%20Runs": (run["name"], *STAGES),
        f"runs/flow-run/{run['id']}?tab=Logs": ("train 3/3: loss 0.333",),
        f"artifacts/artifact/{summary['id']}": ("summary", "Stages: 5 ran"),
    }.items():
        chromium.open(f"{server}/{page}")
        wait_for_text(chromium, *texts)
        asked = chromium.requests()
        assert f"{server}/{page}" in asked
        assert all(address.startswith(server) for address in asked), asked

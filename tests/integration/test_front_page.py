"""MLflow's page of the search, in a real browser: each point of the plot opens the run of its trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from flows.serving import servers
from tasks.core.common.files import write_json
from tasks.core.tracking.mirror import Tracker
from tests.builders import build
from tests.integration.conftest import Browser

SELECTED = {
    "selected": "press-7",
    "accuracy": 0.9172,
    "drop_points": 0.46,
    "speedup_b1": 6.8,
    "size_ratio": 17.9,
}


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an MLflow server, which is also the store that trackers log to."""
    monkeypatch.chdir(tmp_path)  # where the server's log goes
    with servers.bind(0) as listener:
        port = listener.getsockname()[1]
    server = servers.mlflow_server(port, f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        server.wait_until_up()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        yield server.url
    finally:
        server.stop()


def log_press(folder: Path, root: Path) -> tuple[str, dict[str, str]]:
    """Mirror a search in `folder`: the id of its run, and the ids of its trials' runs by their names."""
    tracker = Tracker(root, "example")
    parent = tracker.start("pipeline")
    tracker.stage_started("press")
    tracker.stage_ended("press", "ran", folder)
    write_json(root / "metrics.json", {**SELECTED, "verdict": "It can be shipped."})
    tracker.log_summary(root, folder.parent / "ingest", "The fastest.")
    tracker.end(ok=True)
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'example'")
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_name: run.info.run_id for run in runs if run.info.run_id != parent}
    return names.pop("press"), names


def show_table(mlflow: str, chromium: Browser) -> None:
    """The table of runs shows what was selected, how accurate, fast and small it is, to whom has set nothing up."""
    chromium.open(f"{mlflow}/#/experiments/1/runs?viewStateShareKey=example", 1900)
    WebDriverWait(chromium.driver, 180).until(
        lambda d: SELECTED["selected"] in d.find_element(By.TAG_NAME, "body").text
    )
    shown = chromium.driver.find_element(By.TAG_NAME, "body").text.splitlines()
    for name, value in SELECTED.items():
        assert {name, str(value)} <= set(shown)


def opened(driver: WebDriver, point: WebElement, name: str) -> str:
    """The address of the page that a click opens in another tab, once the page shows the run's `name`; the
    tab is closed again."""
    point.click()
    driver.switch_to.window(driver.window_handles[-1])
    WebDriverWait(driver, 180).until(lambda d: name in d.find_element(By.TAG_NAME, "body").text.splitlines())
    address = driver.current_url
    driver.close()
    driver.switch_to.window(driver.window_handles[0])
    return address


def test_each_point_opens_its_run_when_clicked(mlflow: str, chromium: Browser, tmp_path: Path) -> None:
    build(tmp_path / "data")
    press, trials = log_press(tmp_path / "data" / "press", tmp_path)
    assert len(trials) == 20
    show_table(mlflow, chromium)
    wait = WebDriverWait(chromium.driver, 180)
    chromium.open(f"{mlflow}/#/experiments/1/runs/{press}")
    wait.until(lambda d: d.find_element(By.XPATH, "//*[text()='Show more']")).click()
    points = wait.until(lambda d: [a for a in d.find_elements(By.CSS_SELECTOR, "pre a") if a.text])
    linked = {
        name: point
        for point in points
        for name, run in trials.items()
        if point.get_property("href").endswith(run)
    }
    assert set(linked) == set(trials)
    named = [linked[f"press trial {number}"].text for number in (9, 19, 2)]
    assert named == ["9*", "19", "○"]
    for name in ("press trial 9", "press trial 2"):
        address = opened(chromium.driver, linked[name], name)
        assert address.partition("?")[0].endswith(f"/runs/{trials[name]}")
    lines = chromium.evaluate("return document.querySelector('pre').innerText").splitlines()
    assert len({line.index("│") for line in lines if "│" in line}) == 1

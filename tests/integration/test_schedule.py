"""The deployments of prefect.yaml: registered without a question, run by a real worker on their schedule."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.serving import services
from tests.integration.toy import ROOT, ask, environment, modelpress, prefect_server

EVERY_S = 40  # longer than a run takes to start on a slow machine, or the late ones pile up


@pytest.fixture(scope="module")
def deployed(
    fresh: Path, databases: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A toy checkout whose deployments are registered with a server of its own; `nightly` comes often."""
    folder = tmp_path_factory.mktemp("schedule") / "toy"
    shutil.copytree(fresh, folder)
    (folder / "flows").symlink_to(ROOT / "flows")
    text, changed = re.subn(
        r'cron: "0 3 \* \* \*"\n\s+timezone: UTC', f"interval: {EVERY_S}", (ROOT / "prefect.yaml").read_text()
    )
    assert changed == 1
    (folder / "prefect.yaml").write_text(text)
    home = shutil.copytree(databases / "prefect", tmp_path_factory.mktemp("server") / "prefect")
    with prefect_server(home, schedules=True) as api:
        modelpress(folder, "deploy", check=True, **api)
        yield folder, api


def deployments(api: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {d["name"]: d for d in ask(api, "/deployments/filter")}


def ended(api: dict[str, str], deployment: str, types: list[str], count: int) -> list[dict[str, Any]]:
    """The first `count` runs of a deployment that have ended in a state of `types`, as soon as there are so many."""
    query = {
        "deployments": {"name": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": types}}},
        "sort": "START_TIME_ASC",
    }
    end = time.monotonic() + 300
    while time.monotonic() < end:
        runs: list[dict[str, Any]] = ask(api, "/flow_runs/filter", query)
        if len(runs) >= count:
            return runs[:count]
        time.sleep(0.5)
    raise AssertionError(f"{deployment} has not ended {count} times: {ask(api, '/flow_runs/filter')}")


def begin(api: dict[str, str], deployment: str) -> None:
    ask(api, f"/deployments/{deployments(api)[deployment]['id']}/create_flow_run")


def wait_for_start(folder: Path) -> None:
    """Return when the stage `train` of a run sleeps."""
    end = time.monotonic() + 200
    while not (folder / "sleeping").is_file():
        assert time.monotonic() < end, "no run has come to stage train"
        time.sleep(0.2)


def test_deploy_registers_both_and_asks_nothing_when_it_is_done_twice(
    deployed: tuple[Path, dict[str, str]],
) -> None:
    folder, api = deployed
    modelpress(folder, "deploy", check=True, **api)
    found = deployments(api)
    assert set(found) == {"train", "nightly"}
    assert found["train"]["schedules"] == []
    assert [s["schedule"]["interval"] for s in found["nightly"]["schedules"]] == [EVERY_S]
    assert {d["work_pool_name"] for d in found.values()} == {"local"}
    (automation,) = ask(api, "/automations/filter")
    assert automation["enabled"]
    assert automation["trigger"]["within"] == services.SILENT_S
    assert automation["actions"][0]["state"] == "CRASHED"


def test_schedule_fires_and_computes_nothing_when_nothing_has_changed_and_one_run_works_at_a_time(
    deployed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, api = deployed
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment(TOY_SLEEP="train=240", **api),
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as worker,
    ):
        try:
            wait_for_start(folder)
            begin(api, "train")
            (other,) = ended(api, "train", ["CANCELLED", "COMPLETED", "FAILED", "CRASHED"], 1)
            (folder / "sleeping").unlink(missing_ok=True)  # the first works on
            first, second = ended(api, "nightly", ["COMPLETED", "FAILED", "CRASHED"], 2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()}") from None
        finally:
            worker.terminate()
            worker.wait(240)
    assert other["state_name"] == "Cancelled", other["state"]
    assert "another run is at work" in other["state"]["message"]
    assert first["state_name"] == "Completed", first["state"]
    assert (folder / "data/evaluate/content").is_file()
    assert second["state_name"] == "Cached", second["state"]
    assert second["state"]["message"] == "Nothing changed: nothing was recomputed."

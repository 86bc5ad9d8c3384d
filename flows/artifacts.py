"""What a run found, in Prefect's UI: the table of candidates and a summary."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run

from flows.engine.flow_runs import FlowRun
from flows.engine.stage import Outcome
from flows.engine.walk import Outcomes, Walked
from flows.registry.register import Registered
from flows.selection import read_candidates, selected
from tasks.core.common.files import read_json


def sentence(outcomes: Outcomes) -> str:
    """`3 stages ran, 2 restored from the cache, 6 unchanged.`"""
    counts = Counter(outcomes.values())
    words: dict[Outcome, str] = {
        "ran": "ran",
        "restored": "restored from the cache",
        "unchanged": "unchanged",
    }
    parts = [f"{counts[key]} {word}" for key, word in words.items() if counts[key]]
    return "Stages: " + ", ".join(parts) + "."


def create(run: FlowRun, select: Path, walked: Walked, registered: Registered | None, seconds: float) -> None:
    """Create the artifacts `candidates` and `summary` of the current flow run."""
    table = [{key: _rounded(value) for key, value in row.items()} for row in read_candidates(select)]
    if table:
        run.artifact(_artifact("candidates", "table", json.dumps(table), "All candidates"))
    run.artifact(_artifact("summary", "markdown", _summary(select, walked, registered, seconds)))


def _artifact(key: str, kind: str, data: str, description: str | None = None) -> ArtifactCreate:
    return ArtifactCreate(key=key, type=kind, data=data, description=description, flow_run_id=flow_run.id)


def _rounded(text: str) -> str:
    """A number with at most four decimals, other text as it is."""
    try:
        return text if text.isdecimal() else f"{float(text):.4f}".rstrip("0").rstrip(".")
    except ValueError:
        return text


def headline(select: Path) -> str:
    """What was selected, in a sentence; empty if nothing was."""
    metrics = select / "metrics.json"
    return selected(read_json(metrics)) if metrics.is_file() else ""


def _summary(select: Path, walked: Walked, registered: Registered | None, seconds: float) -> str:
    lines = ["# modelpress", ""]
    if said := headline(select):
        lines += [said, ""]
    if registered is not None:
        lines += [registered.sentence, ""]
    lines += [f"{sentence(walked.outcomes)} {seconds:.1f} s.", "", "| stage | |", "|---|---|"]
    for name, outcome in walked.outcomes.items():
        lines.append(f"| [{name}](/runs/task-run/{walked.task_runs[name].task_run_id}) | {outcome} |")
    return "\n".join(lines) + "\n"

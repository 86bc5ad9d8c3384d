"""What a run found, in Prefect's UI: the table of candidates and a summary."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.engine.stage import Outcome
from flows.engine.walk import Outcomes
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


def create(select: Path, outcomes: Outcomes, registered: Registered | None, seconds: float) -> None:
    """Create the artifacts `candidates` and `summary` of the current flow run."""
    table = read_candidates(select)
    if table:
        create_table_artifact([dict(row) for row in table], key="candidates", description="All candidates")
    create_markdown_artifact(_summary(select, outcomes, registered, seconds), key="summary")


def _summary(select: Path, outcomes: Outcomes, registered: Registered | None, seconds: float) -> str:
    lines = ["# modelpress", ""]
    if (select / "metrics.json").is_file():
        lines += [selected(read_json(select / "metrics.json")), ""]
    if registered is not None:
        lines += [registered.sentence, ""]
    lines += [f"{sentence(outcomes)} {seconds:.1f} s.", "", "| stage | |", "|---|---|"]
    lines += [f"| {name} | {outcome} |" for name, outcome in outcomes.items()]
    return "\n".join(lines) + "\n"

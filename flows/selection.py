"""What stage select wrote, read and said in words."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_candidates(select: Path) -> list[dict[str, str]]:
    """The rows of candidates.csv in `select`; none if there is no such file."""
    path = select / "candidates.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def selected(metrics: Mapping[str, Any]) -> str:
    """metrics.json of select, in a few sentences: whether to ship it comes first."""
    return f"{metrics['verdict']} {figures(metrics)}"


def figures(metrics: Mapping[str, Any]) -> str:
    """What was selected, in figures, and why, unless the verdict has said so."""
    low, high = metrics["drop_points_ci95"]
    said = (
        f"{metrics['selected']}: accuracy {metrics['accuracy']:.2%} (dense {metrics['accuracy_dense']:.2%}), "
        f"{metrics['drop_points']:.2f} points lost (95 % interval {low:.2f} to {high:.2f}), "
        f"{metrics['speedup_b1']:.1f} times faster, {metrics['size_ratio']:.1f} times smaller."
    )
    return said if metrics["reason"] in metrics["verdict"] else f"{said} {metrics['reason']}"

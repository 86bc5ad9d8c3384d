"""What the commands print at their end."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.selection import figures, read_candidates
from tasks.core.common.files import read_json

_WIDTH = 160  # where the output is no terminal


def console() -> Console:
    """A console as wide as the terminal, or as wide as tables need."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 1) -> None:
    """Print a table; columns from number `right` on are aligned to the right."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        grid.add_column(head, justify="right" if number >= right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console().print(grid, highlight=False, markup=False)


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def print_candidates(select: Path) -> None:
    """Whether to ship what was selected, the table of candidates, the chosen one marked, and why it was chosen."""
    rows = read_candidates(select)
    metrics = read_json(select / "metrics.json") if (select / "metrics.json").is_file() else None
    if metrics:
        print(metrics["verdict"], *metrics["advice"], sep="\n  ", end="\n\n")
    if rows:
        heads = ["candidate", "accuracy", "lost (points)", "95 % interval", "size", "batch 1, 1 thread"]
        heads += ["times faster", "times smaller", "in the bar"]
        table(heads, [_candidate(row) for row in rows])
    if metrics:
        print(f"\nselected: {figures(metrics)}")
        print(f"model: {select / 'model.onnx'}")


def _candidate(row: Mapping[str, str]) -> list[str]:
    return [
        ("> " if row["selected"].lower() == "true" else "  ") + row["candidate"],
        f"{float(row['accuracy']):.2%}",
        f"{float(row['drop_points']):.2f}",
        f"{float(row['drop_low']):.2f} to {float(row['drop_high']):.2f}",
        f"{int(row['size_bytes']) / 1000:,.0f} kB",
        f"{float(row['p50_ms_b1_t1']):.3f} ms",
        f"{float(row['speedup_b1']):.1f}",
        f"{float(row['size_ratio']):.1f}",
        "yes" if row["within_bar"].lower() == "true" else "no",
    ]


def print_effects(path: Path) -> None:
    """The table that stage effects wrote, the largest effects first."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["kind"], -float(row["points"])))
    heads = [
        "technique",
        "measured",
        "verdict",
        "beside accuracy",
        "points",
        "95 % interval",
        "with it",
        "without it",
    ]
    table(heads, [_effect(row) for row in rows], right=4)


def _effect(row: Mapping[str, str]) -> list[str]:
    points, low, high = (f"{float(row[key]):+.2f}" for key in ("points", "low", "high"))
    accuracies = [f"{float(row[key]):.2%}" for key in ("having", "lacking")]
    return [
        row["technique"],
        row["kind"],
        row["verdict"],
        row["note"],
        points,
        f"{low} to {high}",
        *accuracies,
    ]

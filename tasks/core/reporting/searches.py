"""The content of the report on what was searched: the trials of tune, and the designs of press.

Accuracies are fractions in the files and per cent in the charts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tasks.core.evaluation.candidates import number, read_result, read_table, sortable
from tasks.core.reporting import charts, search_charts
from tasks.core.reporting.charts import Line
from tasks.core.reporting.page import percent, times
from tasks.core.reporting.search_charts import Coordinate, Track

TRIALS = 10
LOG_SPAN = 20  # values that span so many times their least are drawn on a log scale
NOT_SEARCHED = ("number", "state", "value", "macs", "epochs")
GROUPS = 6  # curves of sensitivity: as many as there are tones
GREATER = {"fastest": "faster", "smallest": "smaller"}  # by what is sought


def recipe(folder: Path) -> dict[str, Any]:
    """What was `auto` became, why, and the trials behind it. Only `on: False` where nothing was `auto`."""
    settled = read_result(folder / "choices.json")
    if not settled["choices"]:
        return {"on": False}
    trials = [
        {
            **row,
            **{name: number(row[name]) for name in ("accuracy", "loss", "gain", "error")},
            "compared": row["gain"] != "",
        }
        for row in read_table(folder / "trials.csv")
    ]
    return {
        "on": True,
        "budget": settled["budget"],
        "notes": settled["notes"],
        "choices": settled["choices"],
        "trials": trials,
    }


def tuning(tune: Path) -> dict[str, Any]:
    """The search over `tune.space`: its history, what mattered, its best trials. Only `on: False` without trials."""
    trials = read_table(tune / "trials.csv")
    if not trials:
        return {"on": False}
    history = read_table(tune / "history.csv")
    values = [(int(row["trial"]), 100 * float(row["value"])) for row in history]
    best = [(int(row["trial"]), 100 * float(row["best"])) for row in history]
    searched = [k for k in trials[0] if k not in NOT_SEARCHED]
    ranked = sorted(trials, key=lambda t: (-sortable(number(t["value"])), int(t["number"])))
    metrics = read_result(tune / "metrics.json")
    top = f", the best {best[-1][1]:.2f} %" if best else ""
    return {
        "on": True,
        "chart": search_charts.trials(values, best, "tuning", f"Accuracy of {len(values)} trials{top}")
        if values
        else "",
        "importances": [
            (row["param"], number(row["importance"])) for row in read_table(tune / "importances.csv")
        ],
        "searched": searched,
        "trials": [
            {
                "number": t["number"],
                "state": t["state"],
                "value": number(t["value"]),
                "epochs": t.get("epochs", ""),
                "params": [_rounded(t[k]) for k in searched],
            }
            for t in ranked[:TRIALS]
        ],
        "number": len(trials),
        "metrics": metrics,
        "swatches": [charts.swatch(1), charts.swatch(2), charts.swatch(2, dashed=True)],
        "coordinates": _coordinates(ranked, searched),
        "pruning_saved": 1 - metrics["epochs_spent"] / metrics["epochs_without_pruning"],
    }


def _coordinates(ranked: list[dict[str, str]], searched: list[str]) -> Markup:
    """Trials, the best first, across what was searched and what they reached."""
    scales = [_Scale([trial[name] for trial in ranked]) for name in searched]
    reached = _Scale([f"{100 * number(trial['value']):.2f}" for trial in ranked if trial["value"]])
    axes = [Coordinate(name, *scale.ends) for name, scale in zip(searched, scales, strict=True)]
    axes.append(Coordinate("accuracy, %", *reached.ends))
    complete = sum(bool(trial["value"]) for trial in ranked)
    tracks = []
    for rank, trial in enumerate(ranked):
        heights = [scale.at(trial[name]) for name, scale in zip(searched, scales, strict=True)]
        value = trial["value"]
        label = f"trial {trial['number']}: " + (percent(number(value)) if value else trial["state"])
        tone = 1 if rank < max(1, complete // 4) else 2
        height = reached.at(f"{100 * number(value):.2f}") if value else None
        tracks.append(Track([*heights, height], label, tone, dashed=not value))
    return search_charts.coordinates(
        axes, tracks[::-1], "coordinates",
        f"What {len(ranked)} trials tried and reached; the best quarter in the first colour",
    )  # fmt: skip


class _Scale:
    """Heights from 0 to 1 of the values of a column: numbers by size, words in a row."""

    def __init__(self, cells: list[str]) -> None:
        try:
            self._numbers = {cell: float(cell) for cell in cells}
        except ValueError:
            self._numbers = {cell: float(i) for i, cell in enumerate(sorted(set(cells)))}
        low, high = min(self._numbers.values()), max(self._numbers.values())
        self._log = low > 0 and high / low > LOG_SPAN
        self._low, self._high = self._on(low), self._on(high)
        names = {value: cell for cell, value in self._numbers.items()}
        self.ends = _rounded(names[low]), _rounded(names[high])

    def at(self, cell: str) -> float:
        """Where a cell lies."""
        span = self._high - self._low
        return (self._on(self._numbers[cell]) - self._low) / span if span else 0.5

    def _on(self, value: float) -> float:
        return math.log(value) if self._log else value


def press(press: Path) -> dict[str, Any]:
    """The search over designs: what was tried, its front, and what each group and block alone
    costs. Only `on: False` without trials."""
    trials = read_table(press / "trials.csv")
    if not trials:
        return {"on": False}
    metrics = read_result(press / "metrics.json")
    objective = metrics["objective"]
    points = [design_point(trial, objective) for trial in trials]
    searched = [
        key for key in trials[0] if key in ("criterion", "relu", "int8", "float_layers", "float_depthwise")
    ]
    front = [trial for trial in trials if trial["front"] == "True"]
    groups: dict[str, list[dict[str, str]]] = {}
    for row in read_table(press / "sensitivity.csv"):
        groups.setdefault(row["group"], []).append(row)
    whole = groups.pop("", [])
    # A block leaves whole; of a group of channels never all.
    blocks = [groups.pop(name)[0] for name in list(groups) if number(groups[name][0]["ratio"]) == 1]
    ranked = sorted(groups, key=lambda name: min(number(row["accuracy"]) for row in groups[name]))
    curves = [
        Line(
            name,
            [(100 * number(r["ratio"]), 100 * number(r["accuracy"])) for r in [*whole, *groups[name]]],
            i + 1,
            marks=True,
        )
        for i, name in enumerate(ranked[:GROUPS])
    ]
    return {
        "on": True,
        "metrics": metrics,
        "chart": search_charts.designs(
            points, f"Times {GREATER[objective]} than the dense model", "designs",
            f"{len(points)} designs by accuracy and times {GREATER[objective]}, {len(front)} of them on the front",
        ),
        "growth": search_charts.trials(
            [], [(int(trial["number"]), number(trial["hypervolume"])) for trial in trials], "growth",
            "The hypervolume of accuracy and what is sought after each trial", "Hypervolume",
        ),
        "searched": searched,
        "front": [
            (trial, [key.removeprefix("without.") for key in trial if key.startswith("without.") and trial[key] == "True"])
            for trial in sorted(front, key=lambda trial: design_point(trial, objective).x)
        ],
        "sensitivity": charts.lines(
            curves, "Channels removed, %", "Accuracy untrained, %", "sensitivity",
            "Accuracy when one group alone is pruned, for the groups that lose most",
        ) if curves else "",
        "legend": [(charts.swatch(line.tone, marks=True), line.label) for line in curves],
        "groups": [(name, groups[name]) for name in ranked],
        "ratios": [row["ratio"] for row in groups[ranked[0]]] if ranked else [],
        "blocks": sorted(blocks, key=lambda row: -number(row["accuracy"])),
        "whole": whole[0] if whole else None,
    }  # fmt: skip


def design_point(trial: Mapping[str, str], objective: str, href: str = "") -> search_charts.Design:
    """A row of press/trials.csv as a dot: accuracy over what is sought, speed or smallness."""
    accuracy, speedup, smaller = (number(trial[key]) for key in ("accuracy", "speedup", "size_ratio"))
    label = f"trial {trial['number']}: {percent(accuracy)}, {times(speedup)} faster, {times(smaller)} smaller"
    if trial["candidate"]:
        label = f"{trial['candidate']}, {label}"
    front = trial["front"] == "True"
    x = speedup if objective == "fastest" else smaller
    return search_charts.Design(x, 100 * accuracy, label, front, bool(trial["candidate"]), href)


def _rounded(text: str) -> str:
    """A cell with at most four significant digits; text that is no number as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text

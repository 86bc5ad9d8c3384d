"""The content of the report on what was searched: the trials of tune, and the designs of press.

Accuracies are fractions in the files and per cent in the charts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core import charts
from tasks.core.candidates import number, read_result, read_table, sortable
from tasks.core.charts import Line
from tasks.core.page import percent, times

TRIALS = 10
GROUPS = 6  # curves of sensitivity: as many as there are tones


def tuning(tune: Path) -> dict[str, Any]:
    """The search over `tune.space`: its history, what mattered, its best trials. Only `on: False` without trials."""
    trials = read_table(tune / "trials.csv")
    if not trials:
        return {"on": False}
    history = read_table(tune / "history.csv")
    values = [(int(row["trial"]), 100 * float(row["value"])) for row in history]
    best = [(int(row["trial"]), 100 * float(row["best"])) for row in history]
    searched = [k for k in trials[0] if k not in ("number", "state", "value", "epochs")]
    ranked = sorted(trials, key=lambda t: (-sortable(number(t["value"])), int(t["number"])))
    top = f", the best {best[-1][1]:.2f} %" if best else ""
    return {
        "on": True,
        "chart": charts.trials(values, best, "tuning", f"Accuracy of {len(values)} trials{top}")
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
        "metrics": read_result(tune / "metrics.json"),
    }


def press(press: Path) -> dict[str, Any]:
    """The search over designs: what was tried, its front, and what each group and block alone
    costs. Only `on: False` without trials."""
    trials = read_table(press / "trials.csv")
    if not trials:
        return {"on": False}
    metrics = read_result(press / "metrics.json")
    points = [design_point(trial) for trial in trials]
    searched = [key for key in trials[0] if key in ("criterion", "int8", "float_layers", "float_depthwise")]
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
        "chart": charts.designs(
            points, "Times faster than the dense model", "designs",
            f"{len(points)} designs by accuracy and speed-up, {len(front)} of them on the front",
        ),
        "growth": charts.trials(
            [], [(int(trial["number"]), number(trial["hypervolume"])) for trial in trials], "growth",
            "The hypervolume of accuracy and speed-up after each trial", "Hypervolume",
        ),
        "searched": searched,
        "front": [
            (trial, [key.removeprefix("without.") for key in trial if key.startswith("without.") and trial[key] == "True"])
            for trial in sorted(front, key=lambda trial: number(trial["speedup"]))
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


def design_point(trial: Mapping[str, str], href: str = "") -> charts.Design:
    """A row of press/trials.csv as a dot."""
    accuracy, speedup = number(trial["accuracy"]), number(trial["speedup"])
    label = f"trial {trial['number']}: {percent(accuracy)}, {times(speedup)} faster"
    if trial["candidate"]:
        label = f"{trial['candidate']}, {label}"
    front = trial["front"] == "True"
    return charts.Design(speedup, 100 * accuracy, label, front, bool(trial["candidate"]), href)


def _rounded(text: str) -> str:
    """A cell with at most four significant digits; text that is no number as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text

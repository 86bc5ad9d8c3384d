"""The report's section on learning: accuracy and loss over the epochs, of the dense model and of those made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.config.compression_params import SPARSE
from tasks.core.evaluation.candidates import candidate_folder, number, pressed, read_result, read_table
from tasks.core.reporting import charts
from tasks.core.reporting.charts import Line


def learning(train: Path, prune: Path, press: Path, recovery: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy and loss over the epochs, of the dense model, of those pruned and of those that press has found, which
    come last; and how they recovered, by section `prune` of the params."""
    history = read_table(train / "history.csv")
    trained = read_result(train / "metrics.json")
    folders = {_pruned_by(str(ratio)): prune / str(ratio) for ratio in sorted(recovery["ratios"], key=str)}
    folders |= {name: candidate_folder(name, prune, press) for name in pressed(press)}
    found = read_result(press / "metrics.json")["candidates"]
    every = {name: read_table(folder / "history.csv") for name, folder in folders.items()}
    pruned = {
        name: rows for name, rows in every.items() if rows
    }  # a design that is good as it is cut has none
    dense_accuracy = [
        Line("training", _curve(history, "train_accuracy", 100), 2, dashed=True),
        Line("validation", _curve(history, "val_accuracy", 100), 1, marks=True),
    ]
    dense_loss = [
        Line("training", _curve(history, "train_loss"), 2, dashed=True),
        Line("validation", _curve(history, "val_loss"), 1, marks=True),
    ]
    pruned_accuracy = [
        Line(name, _curve(rows, "val_accuracy", 100), _tone(i), i % 2 == 1, marks=True)
        for i, (name, rows) in enumerate(pruned.items())
    ]
    final = 100 * trained["val_accuracy"]
    left = [("dense", trained["parameters"], trained["val_accuracy"])]
    for name, folder in folders.items():
        measured = read_result(folder / "metrics.json")
        lost = found[name]["val_drop_points"] / 100 if name in found else None
        accuracy = measured["val_accuracy"] if lost is None else trained["val_accuracy"] - lost
        left.append((name, measured["parameters"], accuracy))
    return {
        "figures": [
            _learning_figure("dense-accuracy", "Dense model: accuracy", "Accuracy, %", dense_accuracy),
            _learning_figure("dense-loss", "Dense model: loss", "Loss", dense_loss),
            _learning_figure(
                "pruned-accuracy", "Pruned models: validation accuracy", "Accuracy, %", pruned_accuracy,
                final,
            ),
        ],
        "trained": trained,
        "distilled": recovery["distill_weight"] > 0,
        "left": [
            (name, parameters, parameters / trained["parameters"], accuracy)
            for name, parameters, accuracy in left
        ],
    }  # fmt: skip


def _pruned_by(ratio: str) -> str:
    return ratio if ratio.startswith(SPARSE) else f"{ratio} removed"


def _learning_figure(
    name: str, title: str, y_title: str, curves: list[Line], level: float | None = None
) -> dict[str, Any]:
    curves = [c for c in curves if c.points]
    ends = "; ".join(f"{c.label} ends at {c.points[-1][1]:.4g}" for c in curves)
    return {
        "title": title,
        "chart": charts.lines(curves, "Epoch", y_title, name, f"{title} by epoch: {ends}", level),
        "legend": [(charts.swatch(c.tone, c.dashed, c.marks), c.label) for c in curves],
        "level": level,
        "empty": not curves,
    }


def _tone(index: int) -> int:
    return index % charts.SERIES + 1


def _curve(rows: list[dict[str, str]], column: str, factor: float = 1) -> list[tuple[float, float]]:
    """The column over 1, 2, 3, …: the epochs that were trained, whatever restarts in between."""
    values = [(i + 1.0, factor * number(row.get(column))) for i, row in enumerate(rows)]
    return [(x, y) for x, y in values if math.isfinite(y)]

"""The content of the report, section by section: the stages' files in, what the template shows out.

Accuracies are fractions in the files and per cent in the charts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.data.dataset import Dataset
from tasks.core.data.inputs import TextInput
from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import (
    DENSE,
    TIMED,
    Candidate,
    float_nodes,
    pareto_front,
    read_result,
    sortable,
)
from tasks.core.reporting import charts
from tasks.core.reporting.charts import Dot
from tasks.core.reporting.page import milliseconds, percent, points, times
from tasks.core.reporting.verdict import doubt, rule
from tasks.core.reporting.weaknesses import weaknesses

MATRIX_CLASSES = 30  # the largest confusion matrix that a reader can use
WORST = 60  # recalls listed when there are more classes than that
PAIRS = 8
REASONS = 100  # files or rows listed as left out
WORTH_A_WORD = 0.3  # share of zeros
CLASSIFIER = "its outputs are the classes"  # why pruning keeps it whole, which is no news


def answer(rows: Mapping[str, Candidate], metrics: dict[str, Any]) -> dict[str, Any]:
    """What was selected, in a headline, and the figures under it."""
    selected, dense = rows[metrics["selected"]], rows[DENSE]
    return {
        "headline": headline(metrics),
        "reason": metrics["reason"].partition(metrics["selected"]),
        "metrics": metrics,
        "selected": selected,
        "dense": dense,
        "interval": charts.interval(
            selected.drop_points, selected.drop_low, selected.drop_high, metrics["max_drop_points"], "drop",
            f"Drop of {points(selected.drop_points)} points, 95 % interval {points(selected.drop_low)} to "
            f"{points(selected.drop_high)}, bar at {points(metrics['max_drop_points'])}",
        ),
    }  # fmt: skip


def headline(metrics: dict[str, Any]) -> str:
    """The outcome in one line: whether to ship it, and then what it gains and loses against the dense one."""
    if not metrics["knows"]:
        return str(metrics["verdict"])
    if metrics["selected"] == DENSE:
        if metrics["passed"]:
            return f"The dense model is the {metrics['objective']} within the bar"
        return "The dense model stays: no compressed one is within the bar"
    speed, small, drop = metrics["speedup_b1"], metrics["size_ratio"], metrics["drop_points"]
    faster = f"{times(speed)} faster" if speed >= 1 else f"{times(1 / speed)} slower"
    smaller = f"{times(small)} smaller" if small >= 1 else f"{times(1 / small)} larger"
    accurate = f"{points(abs(drop))} points {'less' if drop > 0 else 'more'} accurate"
    return f"{faster}, {smaller}, " + ("just as accurate" if abs(drop) < 0.005 else accurate)


def candidates(rows: Mapping[str, Candidate], metrics: dict[str, Any]) -> dict[str, Any]:
    """The table, from the fastest to the slowest, and accuracy against latency and size."""
    bar, dense = _bar(metrics), rows[DENSE]
    front = pareto_front(rows.values())
    order = _fastest_first(rows)
    table = [
        {
            "model": c,
            "kind": _kind(c, metrics),
            "within": bar.passes(c.val_loss),
            "front": c in front,
            "ratio": dense.size_bytes / c.size_bytes,
            "size_share": c.size_bytes / max(r.size_bytes for r in order),
        }
        for c in order
    ]
    dots = [
        Dot(
            x=c.p50_ms_b1_t1,
            y=100 * c.accuracy,
            low=100 * dense.accuracy - c.drop_high,
            high=100 * dense.accuracy - c.drop_low,
            label=c.name,
            kind=_kind(c, metrics),
        )
        for c in order
    ]
    scatter = charts.scatter(
        dots, [(c.p50_ms_b1_t1, 100 * c.accuracy) for c in front], 100 * dense.accuracy - bar.max_drop_points,
        "Latency, ms (p50, one example, one thread)", "Accuracy, %", "scatter",
        "Accuracy against latency: "
        + "; ".join(f"{c.name} {percent(c.accuracy)} at {milliseconds(c.p50_ms_b1_t1, True)}" for c in order),
    )  # fmt: skip
    return {
        "table": table,
        "scatter": scatter,
        "front": [c.name for c in front],
        "sparse": [c.name for c in order if c.sparsity > WORTH_A_WORD],
        "bar": bar.max_drop_points,
        "rule": rule(bar),
    }


def _bar(metrics: dict[str, Any]) -> Bar:
    return Bar(metrics["max_drop_points"], metrics["val_examples"])


def baselines(found: dict[str, Any], dense: Candidate) -> dict[str, Any]:
    """What simple classifiers reach on the same images, the best on validation images first, beside the dense model."""
    order = sorted(found["accuracy"].items(), key=lambda item: -item[1]["val"])
    return {
        "rows": order,
        "best": found["best"],
        "examples": found["examples"],
        "features": found["features"],
        "dense": dense,
    }


def worth_knowing(
    rows: Mapping[str, Candidate], accuracy: Mapping[str, Any], prune: Path, ratios: list[float | str]
) -> dict[str, Any]:
    """What did not go as one would hope, in sentences, and the layers that pruning by each of `ratios` left
    whole though they are not the classifier, with the reasons."""
    notes = [note for c in _fastest_first(rows) for note in weaknesses(c.name, rows, accuracy[c.name])]
    kept = {}
    for ratio in sorted(map(str, ratios)):
        found = read_result(prune / ratio / "metrics.json")
        if found.get("collapsed"):
            notes.append(
                f"prune-{ratio} has collapsed: {percent(found['val_accuracy'])} on the validation examples is "
                "little more than guessing."
            )
        kept[f"prune-{ratio}"] = [
            (layer["layer"], layer["reason"])
            for layer in found.get("kept_whole", [])
            if layer["reason"] != CLASSIFIER
        ]
    return {"notes": notes, "kept": {name: layers for name, layers in kept.items() if layers}}


def _fastest_first(rows: Mapping[str, Candidate]) -> list[Candidate]:
    return sorted(rows.values(), key=lambda c: (c.p50_ms_b1_t1, c.size_bytes, c.name))


def _kind(candidate: Candidate, metrics: dict[str, Any]) -> str:
    if candidate.name == metrics["selected"]:
        return "selected"
    if candidate.name == DENSE:
        return "reference"
    return "within" if _bar(metrics).passes(candidate.val_loss) else "outside"


def speed(rows: Mapping[str, Candidate], latency: dict[str, Any]) -> dict[str, Any]:
    """Every latency measured, the candidates in the order of the first table, and the machine."""
    return {
        "settings": TIMED,
        "rows": [(c.name, latency["candidates"][c.name]) for c in _fastest_first(rows)],
        "fingerprint": latency["fingerprint"],
    }


def nodes(rows: Mapping[str, Candidate], detail: dict[str, Any]) -> dict[str, Any]:
    """In what precision the weighted nodes compute: how many of every candidate, and which of the
    selected one, whose entry in accuracy.json is `detail`, stay in floating point."""
    return {"rows": _fastest_first(rows), "float": float_nodes(detail.get("nodes", []))}


def errors(detail: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """Where the selected model errs: the confusion matrix, its largest entries, recall a class."""
    confusion: list[list[int]] = detail["confusion"]
    totals = [sum(row) for row in confusion]
    cells = [
        [_cell(number, total, row == column) for column, number in enumerate(numbers)]
        for row, (numbers, total) in enumerate(zip(confusion, totals, strict=True))
    ]
    wrong = [
        (number, classes[i], classes[j], number / totals[i])
        for i, numbers in enumerate(confusion)
        for j, number in enumerate(numbers)
        if i != j and number
    ]
    recall = sorted(
        ((detail["recall"][name], name, totals[i]) for i, name in enumerate(classes)),
        key=lambda r: (sortable(r[0]), r[1]),
    )
    return {
        "classes": classes,
        "matrix": cells if len(classes) <= MATRIX_CLASSES else None,
        "largest": MATRIX_CLASSES,
        "pairs": sorted(wrong, key=lambda w: (-w[0], w[1], w[2]))[:PAIRS],
        "recall": recall[:WORST],
        "shown": min(WORST, len(recall)),
        "detail": detail,
        "doubt": doubt(detail["unsure"]),
    }


def _cell(number: int, total: int, right: bool) -> dict[str, Any]:
    """A count with how deep it is coloured, in per cent. Errors are few, so they get a root scale;
    depths between 48 and 85 are left out, as neither dark nor light text is readable on them."""
    share = number / total if total else 0.0
    if right:
        depth = 85 + 30 * (share - 0.5) if share >= 0.5 else 8 + 80 * share
    else:
        depth = 48 * math.sqrt(min(1.0, share / 0.5))
    return {"number": number, "depth": round(depth) if number else 0, "right": right, "strong": depth >= 85}


def data(found: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What ingest found, kept and left out."""
    counts = found["counts"]
    most = max((n for split in counts.values() for n in split.values()), default=1) or 1
    return {
        "found": found,
        "classes": [
            {
                "name": name,
                "counts": [counts[split].get(name, 0) for split in ("train", "val", "test")],
                "share": counts["train"].get(name, 0) / most,
            }
            for name in dataset.classes
        ],
        "totals": [sum(counts[split].values()) for split in ("train", "val", "test")],
        "shape": None if isinstance(dataset.input, TextInput) else dataset.input.shape,
        "input": dataset.input,
        "left_out": found["left_out"][:REASONS],
        "left_out_total": sum(found["left_out_counts"].values()),
    }


def flat_settings(settings: dict[str, dict[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """Each section as dotted keys and plain values, in the order of params.yaml's model."""
    return {section: list(_flatten(values)) for section, values in settings.items()}


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value))
    return flat

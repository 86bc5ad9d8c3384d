"""The content of the report, section by section: the stages' files in, what the template shows out.

Accuracies are fractions in the files and per cent in the charts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core import charts
from tasks.core.candidates import (
    DENSE,
    TIMED,
    Candidate,
    float_nodes,
    pareto_front,
    read_result,
    read_table,
)
from tasks.core.charts import Dot, Line
from tasks.core.data import Dataset
from tasks.core.page import milliseconds, percent, points, times
from tasks.core.params import SPARSE
from tasks.core.pictures import PIXEL_ART, file_uri, image_uri
from tasks.core.weaknesses import weaknesses

MATRIX_CLASSES = 30  # the largest confusion matrix that a reader can use
WORST = 60  # recalls listed when there are more classes than that
TRIALS = 10
GROUPS = 6  # curves of sensitivity: as many as there are tones
PAIRS = 8
REASONS = 100  # files listed as left out
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
    """The outcome in one line: what the selected model gains and loses against the dense one."""
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
    bar, dense = metrics["max_drop_points"], rows[DENSE]
    front = pareto_front(rows.values())
    order = _fastest_first(rows)
    table = [
        {
            "model": c,
            "kind": _kind(c, metrics),
            "within": c.within(bar),
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
        dots, [(c.p50_ms_b1_t1, 100 * c.accuracy) for c in front], 100 * dense.accuracy - bar,
        "Latency, ms (p50, one image, one thread)", "Accuracy, %", "scatter",
        "Accuracy against latency: "
        + "; ".join(f"{c.name} {percent(c.accuracy)} at {milliseconds(c.p50_ms_b1_t1, True)}" for c in order),
    )  # fmt: skip
    return {
        "table": table,
        "scatter": scatter,
        "front": [c.name for c in front],
        "sparse": [c.name for c in order if c.sparsity > WORTH_A_WORD],
        "bar": bar,
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
                f"prune-{ratio} has collapsed: {percent(found['val_accuracy'])} on the validation images is "
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
    return "within" if candidate.within(metrics["max_drop_points"]) else "outside"


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


def learning(train: Path, prune: Path, ratios: list[float | str]) -> dict[str, Any]:
    """Accuracy and loss over the epochs, of the dense model and of those pruned by `ratios`: shares of
    the channels, or a kind of sparsity in words, which come last."""
    history = read_table(train / "history.csv")
    trained = read_result(train / "metrics.json")
    pruned = {str(ratio): read_table(prune / str(ratio) / "history.csv") for ratio in sorted(ratios, key=str)}
    dense_accuracy = [
        Line("training", _curve(history, "train_accuracy", 100), 2, dashed=True),
        Line("validation", _curve(history, "val_accuracy", 100), 1, marks=True),
    ]
    dense_loss = [
        Line("training", _curve(history, "train_loss"), 2, dashed=True),
        Line("validation", _curve(history, "val_loss"), 1, marks=True),
    ]
    pruned_accuracy = [
        Line(
            ratio if ratio.startswith(SPARSE) else f"{ratio} removed",
            _curve(rows, "val_accuracy", 100),
            _tone(i),
            i % 2 == 1,
            marks=True,
        )
        for i, (ratio, rows) in enumerate(pruned.items())
    ]
    final = 100 * trained["val_accuracy"]
    left = [("0", trained), *((r, read_result(prune / r / "metrics.json")) for r in pruned)]
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
        "left": [
            (r, m["parameters"], m["parameters"] / trained["parameters"], m["val_accuracy"]) for r, m in left
        ],
    }  # fmt: skip


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
    values = [(i + 1.0, factor * _float(row.get(column))) for i, row in enumerate(rows)]
    return [(x, y) for x, y in values if math.isfinite(y)]


def _float(text: str | None) -> float:
    """A number in a CSV cell; NaN when the cell is empty or absent."""
    return float(text) if text else math.nan


def tuning(tune: Path) -> dict[str, Any]:
    """The search: its history, what mattered, its best trials. Only `on: False` without trials."""
    trials = read_table(tune / "trials.csv")
    if not trials:
        return {"on": False}
    history = read_table(tune / "history.csv")
    values = [(int(row["trial"]), 100 * float(row["value"])) for row in history]
    best = [(int(row["trial"]), 100 * float(row["best"])) for row in history]
    searched = [k for k in trials[0] if k not in ("number", "state", "value", "epochs")]
    ranked = sorted(trials, key=lambda t: (-_sortable(_float(t["value"])), int(t["number"])))
    top = f", the best {best[-1][1]:.2f} %" if best else ""
    return {
        "on": True,
        "chart": charts.trials(values, best, "tuning", f"Accuracy of {len(values)} trials{top}")
        if values
        else "",
        "importances": [
            (row["param"], _float(row["importance"])) for row in read_table(tune / "importances.csv")
        ],
        "searched": searched,
        "trials": [
            {
                "number": t["number"],
                "state": t["state"],
                "value": _float(t["value"]),
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
    blocks = [groups.pop(name)[0] for name in list(groups) if _float(groups[name][0]["ratio"]) == 1]
    ranked = sorted(groups, key=lambda name: min(_float(row["accuracy"]) for row in groups[name]))
    curves = [
        Line(
            name,
            [(100 * _float(r["ratio"]), 100 * _float(r["accuracy"])) for r in [*whole, *groups[name]]],
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
            [], [(int(trial["number"]), _float(trial["hypervolume"])) for trial in trials], "growth",
            "The hypervolume of accuracy and speed-up after each trial", "Hypervolume",
        ),
        "searched": searched,
        "front": [
            (trial, [key.removeprefix("without.") for key in trial if key.startswith("without.") and trial[key] == "True"])
            for trial in sorted(front, key=lambda trial: _float(trial["speedup"]))
        ],
        "sensitivity": charts.lines(
            curves, "Channels removed, %", "Accuracy untrained, %", "sensitivity",
            "Accuracy when one group alone is pruned, for the groups that lose most",
        ) if curves else "",
        "legend": [(charts.swatch(line.tone, marks=True), line.label) for line in curves],
        "groups": [(name, groups[name]) for name in ranked],
        "ratios": [row["ratio"] for row in groups[ranked[0]]] if ranked else [],
        "blocks": sorted(blocks, key=lambda row: -_float(row["accuracy"])),
        "whole": whole[0] if whole else None,
    }  # fmt: skip


def design_point(trial: Mapping[str, str], href: str = "") -> charts.Design:
    """A row of press/trials.csv as a dot."""
    accuracy, speedup = _float(trial["accuracy"]), _float(trial["speedup"])
    label = f"trial {trial['number']}: {percent(accuracy)}, {times(speedup)} faster"
    if trial["candidate"]:
        label = f"{trial['candidate']}, {label}"
    front = trial["front"] == "True"
    return charts.Design(speedup, 100 * accuracy, label, front, bool(trial["candidate"]), href)


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _rounded(text: str) -> str:
    """A cell with at most four significant digits; text that is no number as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


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
        key=lambda r: (_sortable(r[0]), r[1]),
    )
    return {
        "classes": classes,
        "matrix": cells if len(classes) <= MATRIX_CLASSES else None,
        "largest": MATRIX_CLASSES,
        "pairs": sorted(wrong, key=lambda w: (-w[0], w[1], w[2]))[:PAIRS],
        "recall": recall[:WORST],
        "shown": min(WORST, len(recall)),
        "detail": detail,
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


def mistakes(evaluation: Path, selected: str, dataset: Dataset, most: int) -> dict[str, Any]:
    """The wrong answers that the selected model was surest of, as pictures."""
    rows = [r for r in read_table(evaluation / "mistakes.csv") if r["candidate"] == selected]
    rows.sort(key=lambda r: (-_float(r["probability"]), int(r["index"])))
    return {
        "pictures": [
            {
                "uri": image_uri(dataset.test.images_NHWC[int(row["index"])]),
                "index": row["index"],
                "true": row["true"],
                "predicted": row["predicted"],
                "probability": _float(row["probability"]),
            }
            for row in rows[:most]
        ],
        "pixelated": max(dataset.image_shape[:2]) <= PIXEL_ART,
        "none": not rows,
    }


def augmentation(augment: Path) -> dict[str, Any]:
    """The policy, and the sheet of pictures before and after it."""
    policy = read_result(augment / "policy.json")
    sheet = augment / "contact_sheet.png"
    return {
        "operations": sorted(policy["operations"].items()),
        "left_out": sorted(policy["left_out"].items()),
        "sheet": file_uri(sheet) if sheet.exists() else None,
    }


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
        "shape": dataset.image_shape,
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

"""Measure every candidate: what it gets right of the validation images, by which one is chosen, and of the test images,
which no choice sees; how large and how fast it is.

Runs alone on the machine. What images say goes to accuracy.json and is the same every time; what a clock says goes to
latency.json.
"""

from __future__ import annotations

import csv
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json, write_json
from tasks.core.common.progress import Progress
from tasks.core.config.cli import main
from tasks.core.config.params import EvaluateParams
from tasks.core.data.dataset import Split, open_dataset
from tasks.core.evaluation.candidates import DENSE, candidate_folders
from tasks.core.evaluation.stats import (
    calibration_error,
    loss,
    mcnemar,
    no_better_than_chance,
    softmax,
)
from tasks.core.runtime.latency import latencies
from tasks.core.runtime.session import fingerprint, peak_memory_mb, predict, session
from tasks.core.runtime.weights import packed_size, sparsity

MISTAKES = 200  # the most confident ones of each candidate that are kept for the report
BATCHES = (1, 64)


def evaluate(
    params: EvaluateParams,
    candidates: Path,
    press: Path,
    baselines: Path,
    data: Path,
    settings: Path,
    out: Path,
) -> None:
    """Write accuracy.json, metrics.json, mistakes.csv and latency.json.

    Args:
        candidates: data/quantize, a folder with a folder a candidate, each with model.onnx and metrics.json.
        press: data/press, with the candidates of the search.
        baselines: data/baselines, with what the best of them predicts.
        data: the ingested data set.
        settings: params.yaml, which says what the candidates are.

    Raises:
        StageFailed: a candidate's logits are not finite, or the reference is missing.
    """
    dataset = open_dataset(data)
    test = dataset.test
    folders = candidate_folders(candidates, press, settings)
    models = {name: folder / "model.onnx" for name, folder in folders.items()}
    timings = [(batch, threads) for threads in _thread_counts() for batch in BATCHES]
    with Progress("evaluate", 2 * len(models) + len(timings)) as progress:
        logits, val_right = {}, {}
        for name, model in models.items():
            logits[name] = _logits(name, model, test)
            val_right[name] = _logits(name, model, dataset.val).argmax(1) == dataset.val.labels_N
            progress.step(f"predicted by {name}")
        _write_accuracy(params, folders, logits, val_right, _baseline(baselines), test, dataset.classes, out)
        memory = {}
        for name, model in models.items():
            memory[name] = peak_memory_mb(model, max(BATCHES))
            progress.step(f"memory of {name}")
        measured: dict[str, dict[str, Any]] = {name: {"peak_memory_mb": memory[name]} for name in models}
        for batch, threads in timings:
            repeats = max(10, params.repeats // batch) if batch > 1 else params.repeats
            timed = latencies(models, test.images_NHWC, batch, threads, repeats, DENSE)
            for name, latency in timed.items():
                measured[name][f"b{batch}_t{'1' if threads == 1 else 'all'}"] = asdict(latency)
            progress.step(f"latency at batch {batch}, threads: {threads}")
    if fingerprint()["threads"] == 1:  # one core: all threads are one
        for entry in measured.values():
            entry |= {f"b{batch}_tall": entry[f"b{batch}_t1"] for batch in BATCHES}
    write_json(out / "latency.json", {"fingerprint": fingerprint(), "candidates": measured})


def _thread_counts() -> list[int]:
    return sorted({1, fingerprint()["threads"]})


def _logits(name: str, model: Path, split: Split) -> NDArray[np.float32]:
    logits_NK = predict(session(model, fingerprint()["threads"]), split.images_NHWC)
    if not np.isfinite(logits_NK).all():
        raise StageFailed(f"{name}: its logits are not finite")
    return logits_NK


def _baseline(folder: Path) -> NDArray[np.int64]:
    """What the best baseline predicts of the test images."""
    try:
        with np.load(folder / "predicted.npz") as arrays:
            return np.asarray(arrays["test_N"])
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: no such file; run the stage baselines first") from None


def _write_accuracy(
    params: EvaluateParams,
    folders: dict[str, Path],
    logits: dict[str, NDArray[np.float32]],
    val_right: dict[str, NDArray[np.bool_]],
    baseline_N: NDArray[np.int64],
    test: Split,
    classes: list[str],
    out: Path,
) -> None:
    labels_N = np.asarray(test.labels_N)
    right = {name: logits_NK.argmax(1) == labels_N for name, logits_NK in logits.items()}
    compared = partial(loss, resamples=params.bootstrap, seed=params.seed)
    accuracy: dict[str, dict[str, Any]] = {}
    mistakes: list[list[Any]] = []
    for name, logits_NK in logits.items():
        lost, val_lost = compared(right[DENSE], right[name]), compared(val_right[DENSE], val_right[name])
        ahead = compared(right[name], baseline_N == labels_N)  # what the baseline loses, the model is ahead
        probabilities_NK, predicted_N = softmax(logits_NK), logits_NK.argmax(1)
        accuracy[name] = {
            **_recognised(labels_N, predicted_N, classes),
            "ece": calibration_error(probabilities_NK, labels_N, params.calibration_bins),
            **_described(folders[name]),
            "drop_points": lost.points,
            "drop_points_ci95": [lost.low, lost.high],
            "mcnemar_p": mcnemar(right[DENSE], right[name]),
            "val_accuracy": float(val_right[name].mean()),
            "val_drop_points": val_lost.points,
            "val_drop_points_ci95": [val_lost.low, val_lost.high],
            "val_drop_error": val_lost.error,
            "margin_points": ahead.points,
            "margin_points_ci95": [ahead.low, ahead.high],
        }
        confidence_N = probabilities_NK.max(1)
        wrong = np.flatnonzero(~right[name])
        worst = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:MISTAKES]
        mistakes += [
            [name, i, classes[labels_N[i]], classes[predicted_N[i]], round(float(confidence_N[i]), 6)]
            for i in worst
        ]
    write_json(out / "accuracy.json", accuracy)
    flat = ("accuracy", "macro_f1", "drop_points", "size_bytes")
    write_json(out / "metrics.json", {n: {k: entry[k] for k in flat} for n, entry in accuracy.items()})
    with (out / "mistakes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["candidate", "index", "true", "predicted", "probability"])
        writer.writerows(mistakes)


def _recognised(
    labels_N: NDArray[np.int64], predicted_N: NDArray[np.intp], classes: list[str]
) -> dict[str, Any]:
    """How many are right, in all and of each class."""
    _, recall, f1, _ = precision_recall_fscore_support(
        labels_N, predicted_N, labels=range(len(classes)), zero_division=0.0
    )
    confusion_KK = confusion_matrix(labels_N, predicted_N, labels=range(len(classes)))
    return {
        "accuracy": float((predicted_N == labels_N).mean()),
        "macro_f1": float(f1.mean()),
        "recall": dict(zip(classes, map(float, recall), strict=True)),
        "confusion": confusion_KK.tolist(),
        "no_better_than_chance": [classes[k] for k in no_better_than_chance(confusion_KK)],
    }


def _described(folder: Path) -> dict[str, Any]:
    """What the stage that made a candidate says of it, and how large its file is."""
    described, model = read_json(folder / "metrics.json"), (folder / "model.onnx").read_bytes()
    return {
        "size_bytes": len(model),
        "size_compressed_bytes": packed_size(model),
        "sparsity": sparsity(model),
        **{key: described[key] for key in ("parameters", "macs", "nodes_int8", "nodes_fp32")},
        **{key: described[key] for key in ("nodes", "warning") if described.get(key)},
    }


if __name__ == "__main__":
    main(evaluate)

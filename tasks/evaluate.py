"""Measure every candidate: what it gets right of the validation images, by which one is chosen, and of the test images,
which no choice sees; how large and how fast it is.

Runs alone on the machine. What images say goes to accuracy.json and is the same every time; what a clock says goes to
latency.json.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from functools import cached_property, partial
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
from tasks.core.evaluation.calibration import unsure_below
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
        answers, val_answers = {}, {}
        for name, model in models.items():
            answers[name] = _answers(name, model, test)
            val_answers[name] = _answers(name, model, dataset.val)
            progress.step(f"predicted by {name}")
        _write_accuracy(
            params, folders, answers, val_answers, _baseline(baselines), test, dataset.classes, out
        )
        memory = {}
        for name, model in models.items():
            memory[name] = peak_memory_mb(model, max(BATCHES))
            progress.step(f"memory of {name}")
        measured: dict[str, dict[str, Any]] = {name: {"peak_memory_mb": memory[name]} for name in models}
        for batch, threads in timings:
            repeats = max(10, params.repeats // batch) if batch > 1 else params.repeats
            timed = latencies(models, test.typical(batch).raw_N, batch, threads, repeats, DENSE)
            for name, latency in timed.items():
                measured[name][f"b{batch}_t{'1' if threads == 1 else 'all'}"] = asdict(latency)
            progress.step(f"latency at batch {batch}, threads: {threads}")
    if fingerprint()["threads"] == 1:  # one core: all threads are one
        for entry in measured.values():
            entry |= {f"b{batch}_tall": entry[f"b{batch}_t1"] for batch in BATCHES}
    write_json(out / "latency.json", {"fingerprint": fingerprint(), "candidates": measured})


def _thread_counts() -> list[int]:
    return sorted({1, fingerprint()["threads"]})


@dataclass(frozen=True)
class _Answers:
    """What a candidate says of a split: probabilities_NK; predicted_N, the most probable class, and right_N."""

    probabilities_NK: NDArray[np.float64]
    predicted_N: NDArray[np.intp]
    right_N: NDArray[np.bool_]

    @cached_property
    def confidence_N(self) -> NDArray[np.float64]:
        return np.asarray(self.probabilities_NK.max(1))


def _answers(name: str, model: Path, split: Split) -> _Answers:
    logits_NK = predict(session(model, fingerprint()["threads"]), split.raw_N)
    if not np.isfinite(logits_NK).all():
        raise StageFailed(f"{name}: its logits are not finite")
    predicted_N = logits_NK.argmax(1)
    return _Answers(softmax(logits_NK), predicted_N, predicted_N == split.labels_N)


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
    answers: dict[str, _Answers],
    val_answers: dict[str, _Answers],
    baseline_N: NDArray[np.int64],
    test: Split,
    classes: list[str],
    out: Path,
) -> None:
    labels_N = np.asarray(test.labels_N)
    compared = partial(loss, resamples=params.bootstrap, seed=params.seed)
    dense, val_dense = answers[DENSE], val_answers[DENSE]
    accuracy: dict[str, dict[str, Any]] = {}
    mistakes: list[list[Any]] = []
    for name, said in answers.items():
        val_said = val_answers[name]
        lost, val_lost = compared(dense.right_N, said.right_N), compared(val_dense.right_N, val_said.right_N)
        ahead = compared(said.right_N, baseline_N == labels_N)  # what the baseline loses, the model is ahead
        accuracy[name] = {
            **_recognised(labels_N, said.predicted_N, classes),
            "ece": calibration_error(said.probabilities_NK, labels_N, params.calibration_bins),
            "unsure": _unsure(said, val_said, params.precision),
            **_described(folders[name]),
            "drop_points": lost.points,
            "drop_points_ci95": [lost.low, lost.high],
            "mcnemar_p": mcnemar(dense.right_N, said.right_N),
            "val_accuracy": float(val_said.right_N.mean()),
            "val_drop_points": val_lost.points,
            "val_drop_points_ci95": [val_lost.low, val_lost.high],
            "val_drop_error": val_lost.error,
            "margin_points": ahead.points,
            "margin_points_ci95": [ahead.low, ahead.high],
        }
        wrong = np.flatnonzero(~said.right_N)
        worst = wrong[np.argsort(-said.confidence_N[wrong], kind="stable")][:MISTAKES]
        mistakes += [
            [
                name,
                i,
                classes[labels_N[i]],
                classes[said.predicted_N[i]],
                round(float(said.confidence_N[i]), 6),
            ]
            for i in worst
        ]
    write_json(out / "accuracy.json", accuracy)
    flat = ("accuracy", "macro_f1", "drop_points", "size_bytes")
    write_json(out / "metrics.json", {n: {k: entry[k] for k in flat} for n, entry in accuracy.items()})
    with (out / "mistakes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["candidate", "index", "true", "predicted", "probability"])
        writer.writerows(mistakes)


def _unsure(said: _Answers, val_said: _Answers, precision: float) -> dict[str, float | None]:
    """Below which confidence an answer is better withheld, by the validation images, and what of the test images is
    answered then: a share of them, and how many of those are right."""
    below = unsure_below(val_said.confidence_N, val_said.right_N, precision)
    answered_N = said.confidence_N >= (below or 0.0)
    return {
        "precision": precision,
        "below": below,
        "answered": float(answered_N.mean()),
        "right": float(said.right_N[answered_N].mean()) if answered_N.any() else None,
    }


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
        **{key: described[key] for key in ("parameters", "macs", "nodes_int8", "nodes_fp32", "temperature")},
        **{key: described[key] for key in ("nodes", "warning") if described.get(key)},
    }


if __name__ == "__main__":
    main(evaluate)

"""Measure every candidate on the test set: what it gets right, how large and how fast it is.

Runs alone on the machine. What the test set says goes to accuracy.json and is the same every time;
what a clock says goes to latency.json.
"""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import read_json, write_json
from tasks.core.common.progress import Progress
from tasks.core.config.cli import main
from tasks.core.config.params import EvaluateParams
from tasks.core.data.dataset import Split, open_dataset
from tasks.core.evaluation.candidates import DENSE, candidate_folders
from tasks.core.evaluation.stats import calibration_error, drop_interval, mcnemar, softmax
from tasks.core.runtime.latency import latencies
from tasks.core.runtime.session import fingerprint, peak_memory_mb, predict, session
from tasks.core.runtime.weights import packed_size, sparsity

MISTAKES = 200  # the most confident ones of each candidate that are kept for the report
BATCHES = (1, 64)


def evaluate(
    params: EvaluateParams, candidates: Path, press: Path, data: Path, settings: Path, out: Path
) -> None:
    """Write accuracy.json, metrics.json, mistakes.csv and latency.json.

    Args:
        candidates: data/quantize, a folder with a folder a candidate, each with model.onnx and metrics.json.
        press: data/press, with the candidates of the search.
        data: the ingested data set; only its test split is read.
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
        logits = {}
        for name, model in models.items():
            logits[name] = _logits(name, model, test)
            progress.step(f"predicted by {name}")
        _write_accuracy(params, folders, logits, test, dataset.classes, out)
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


def _logits(name: str, model: Path, test: Split) -> NDArray[np.float32]:
    logits_NK = predict(session(model, fingerprint()["threads"]), test.images_NHWC)
    if not np.isfinite(logits_NK).all():
        raise StageFailed(f"{name}: its logits are not finite on the test set")
    return logits_NK


def _write_accuracy(
    params: EvaluateParams,
    folders: dict[str, Path],
    logits: dict[str, NDArray[np.float32]],
    test: Split,
    classes: list[str],
    out: Path,
) -> None:
    labels_N = np.asarray(test.labels_N)
    right = {name: logits_NK.argmax(1) == labels_N for name, logits_NK in logits.items()}
    accuracy: dict[str, dict[str, Any]] = {}
    mistakes: list[list[Any]] = []
    for name, logits_NK in logits.items():
        probabilities_NK = softmax(logits_NK)
        predicted_N = logits_NK.argmax(1)
        _, recall, f1, _ = precision_recall_fscore_support(
            labels_N, predicted_N, labels=range(len(classes)), zero_division=0.0
        )
        described = read_json(folders[name] / "metrics.json")
        model = (folders[name] / "model.onnx").read_bytes()
        accuracy[name] = {
            "accuracy": float(right[name].mean()),
            "macro_f1": float(f1.mean()),
            "ece": calibration_error(probabilities_NK, labels_N, params.calibration_bins),
            "recall": dict(zip(classes, map(float, recall), strict=True)),
            "confusion": confusion_matrix(labels_N, predicted_N, labels=range(len(classes))).tolist(),
            "size_bytes": len(model),
            "size_compressed_bytes": packed_size(model),
            "sparsity": sparsity(model),
            "parameters": described["parameters"],
            "macs": described["macs"],
            "nodes_int8": described["nodes_int8"],
            "nodes_fp32": described["nodes_fp32"],
            **{key: described[key] for key in ("nodes", "warning") if described.get(key)},
            "drop_points": float((right[DENSE].mean() - right[name].mean()) * 100),
            "drop_points_ci95": list(drop_interval(right[DENSE], right[name], params.bootstrap, params.seed)),
            "mcnemar_p": mcnemar(right[DENSE], right[name]),
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


if __name__ == "__main__":
    main(evaluate)

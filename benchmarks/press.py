"""The search against ratios set by hand, at the same budget: whose front is larger?

    python benchmarks/press.py [--run FOLDER]

Takes the dense model of a finished run. By hand: the same ratio in every group, by prune.criterion, as many
ratios as fine-tunings fit into the time that the search with its own fine-tunings took, the middle ratios
first. Both sides train with the same recipe and are quantized to int8. All models are then evaluated on the
test images and timed in turn. The hypervolume is the area of accuracy, above that of the dense model less three
points, times speed-up, above 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result

from tasks.core.common.files import read_json
from tasks.core.data.dataset import open_dataset
from tasks.core.evaluation.stats import drop_interval, hypervolume
from tasks.core.runtime.latency import latencies
from tasks.core.runtime.session import predict, session

ROOT = Path(__file__).parents[1]
BY_HAND = (0.5, 0.4, 0.6, 0.3, 0.7, 0.45, 0.55, 0.35, 0.65)
SPAN = 3.0  # points of accuracy below the dense model that count
REPEATS = 2000


def stage(name: str, run: Path, out: Path, *arguments: str) -> float:
    """Seconds that a stage took on the inputs of `run`, writing to `out`."""
    command = [sys.executable, "-m", f"tasks.{name}", "--params", str(run / "params.yaml")]
    command += ["--data", str(run / "data/ingest"), "--policy", str(run / "data/augment/policy.json")]
    started = time.perf_counter()
    subprocess.run([*command, "--out", str(out), *arguments], cwd=ROOT, check=True)
    return time.perf_counter() - started


def searched(run: Path, work: Path) -> tuple[dict[str, Path], float]:
    """The models of the search, and the seconds it took."""
    settings = ["--settings", str(run / "params.yaml"), "--journal", str(work / "journal")]
    seconds = stage("press", run, work / "press", "--model", str(run / "data/train"), *settings)
    names = read_json(work / "press/metrics.json")["candidates"]
    return {name: work / "press" / name.removeprefix("press-") / "model.onnx" for name in names}, seconds


def by_hand(run: Path, work: Path, budget_s: float) -> tuple[dict[str, Path], float]:
    """The models of ratios set by hand, as many as `budget_s` allows, and the seconds they took."""
    models: dict[str, Path] = {}
    spent = 0.0
    for ratio in BY_HAND:
        if models and spent * (len(models) + 1) / len(models) > budget_s:
            break
        pruned, out = work / f"pruned-{ratio}", work / f"hand-{ratio}"
        spent += stage("prune", run, pruned, "--model", str(run / "data/train"), "--ratio", str(ratio))
        spent += stage("quantize", run, out, "--model", str(pruned), "--scheme", "int8")
        models[f"hand-{ratio}"] = out / "model.onnx"
    return models, spent


def main() -> None:
    """Run both sides, measure them together, and write the fronts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--run", type=Path, default=ROOT, help="a folder with a finished run")
    run = parser.parse_args().run.absolute()
    test = open_dataset(run / "data/ingest").test
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found, search_s = searched(run, work)
        hand, hand_s = by_hand(run, work, search_s)
        models = {"dense": run / "data/quantize/dense-fp32/model.onnx", **found, **hand}
        right = {
            name: predict(session(path, 2), test.raw_N).argmax(1) == test.labels_N
            for name, path in models.items()
        }
        timed = latencies(models, test.raw_N, 1, 1, REPEATS, "dense")
        sizes = {name: path.stat().st_size for name, path in models.items()}
    rows: dict[str, dict[str, Any]] = {
        name: {
            "accuracy": float(right[name].mean()),
            "drop_points": float((right["dense"].mean() - right[name].mean()) * 100),
            "drop_points_ci95": drop_interval(right["dense"], right[name], 10_000, 0),
            "speedup_b1": timed[name].speedup,
            "speedup_b1_ci95": timed[name].speedup_ci95,
            "size_ratio": sizes["dense"] / sizes[name],
        }
        for name in models
    }
    corner = (rows["dense"]["accuracy"] * 100 - SPAN, 1.0)
    areas = {
        side: hypervolume(
            np.array([(100 * rows[n]["accuracy"], rows[n]["speedup_b1"]) for n in names]), corner
        )
        for side, names in (("search", found), ("by_hand", hand))
    }
    payload = {
        "arch": read_json(run / "data/train/model.json")["arch"],
        "seconds": {"search": round(search_s, 1), "by_hand": round(hand_s, 1)},
        "hypervolume": areas,
        "met": areas["search"] >= areas["by_hand"],
        "candidates": rows,
    }
    print(write_result("press", payload, ("torch", "onnxruntime", "optuna")))


if __name__ == "__main__":
    main()

"""TPE with Hyperband against random search without pruning: after how many epochs is it as good?

    python benchmarks/tuning.py [--seeds 5] [--trials 96]

A small task cut from Fashion-MNIST, with a space in which most values are poor ones. Random search trains all its
trials to the end. The other search stops counting at its first trial that reaches the best validation accuracy of the
random one. Both are stage tune as a user runs it, with the same seed; its trials.csv says what was trained. No trial
begins with values of ours: train's own lie outside the space.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import cut
import numpy as np
from common import write_result

IMAGES = {"train": 3000, "val": 2000, "test": 2000}
EPOCHS, TARGET = 9, 1 / 3
SPACE = {
    "lr": {"low": 1e-3, "high": 3.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.99},
    "weight_decay": {"low": 1e-5, "high": 0.1, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.5},
    "augment_strength": {"low": 0.0, "high": 2.0},
}
OWN = {"width": 8, "batch_size": 64, "lr": 5.0}
SEARCHES = {
    "random": {"sampler": "random", "pruner": "none"},
    "tpe": {"sampler": "tpe", "pruner": "hyperband"},
}


def searched(folder: Path, name: str, seed: int, trials: int) -> list[tuple[int, float]]:
    """Each trial's epochs and, if it went to its end, its accuracy, in the order in which they began."""
    tune = {
        "trials": trials,
        "epochs": EPOCHS,
        "train_fraction": 1.0,
        "space": SPACE,
        "seed": seed,
        **SEARCHES[name],
    }
    out = folder / f"{name}-{seed}"
    inputs = (
        "--settings",
        folder / "params.yaml",
        "--weights",
        folder / "start",
        "--journal",
        folder / "journal",
    )
    cut.stage("tune", folder, out, {"tune": tune, "train": {**OWN, "seed": seed}}, *inputs)
    with (out / "trials.csv").open(encoding="utf-8") as file:
        return [(int(row["epochs"]), float(row["value"] or "nan")) for row in csv.DictReader(file)]


def compared(folder: Path, seed: int, trials: int) -> dict[str, Any]:
    """One seed: what random search reached, and after which share of its epochs the other one did."""
    random = searched(folder, "random", seed, trials)
    best = max(value for _, value in random if not math.isnan(value))
    # As many epochs as random search had: Hyperband makes more trials of them.
    found = searched(folder, "tpe", seed, 3 * trials)
    spent, reached = 0, None
    for epochs, value in found:
        spent += epochs
        if value >= best:
            reached = spent
            break
    whole = sum(epochs for epochs, _ in random)
    return {
        "seed": seed,
        "best_random": best,
        "best_tpe": max(value for _, value in found if not math.isnan(value)),
        "epochs_random": whole,
        "epochs_tpe_in_all": sum(epochs for epochs, _ in found),
        "epochs_tpe_as_good": reached,
        "share": reached / whole if reached is not None else None,
    }


def main() -> None:
    """Compare both for each seed, and write the shares."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=96, help="of random search (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "task"
        cut.write_task(folder, {split: np.arange(count) for split, count in IMAGES.items()}, list(range(10)))
        rows = []
        for seed in range(args.seeds):
            rows.append(compared(folder, seed, args.trials))
            print(rows[-1], flush=True)
    median = statistics.median(row["share"] if row["share"] is not None else math.inf for row in rows)
    payload = {
        "trials": args.trials,
        "task": {"images": IMAGES, "epochs_a_trial": EPOCHS, "space": SPACE, "train": OWN},
        "seeds": rows,
        "median_share": round(median, 3) if math.isfinite(median) else None,
        "target": round(TARGET, 3),
        "met": median <= TARGET,
    }
    print(write_result("tuning", payload, ("torch", "optuna")))


if __name__ == "__main__":
    main()

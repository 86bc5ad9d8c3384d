"""What pays where images are few or uneven: balance on a long tail, and transfer from other classes.

    python benchmarks/training.py [--seeds 3]

Long tail (Cui et al. 2019, arXiv:1901.05555): of each class of Fashion-MNIST fewer images than of the one before it,
100 times fewer of the last than of the first. Macro recall on the whole test set, of training as it is and with each
way to balance it, after few epochs and after more: with time the plain loss learns the rare classes, too.

Transfer: a network that has learned trouser, sandal, sneaker, bag and ankle boot from all their images learns t-shirt,
pullover, dress, coat and shirt from 20 of each; another one does so from the beginning, in the same epochs. Accuracy
on the 5,000 test images of these classes, with the interval of the paired difference.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cut
import numpy as np
import torch
from common import write_result
from numpy.typing import NDArray

from tasks.core.data.dataset import open_dataset
from tasks.core.evaluation.stats import drop_interval
from tasks.core.models.saved import load_model
from tasks.core.training.loop import predict

CLASSES = list(range(10))
LARGEST, IMBALANCE = 5000, 100
TAIL = {"width": 16, "lr": 0.1, "batch_size": 128, "label_smoothing": 0.0}
TAIL_EPOCHS = (4, 8, 16)
BALANCES: dict[str, dict[str, Any]] = {
    "plain": {},
    "class_weights": {"class_weights": "balanced"},
    "sampling": {"sampling": "balanced"},
    "logit_adjustment": {"logit_adjustment": 1.0},
    "sampling, label smoothing": {"sampling": "balanced", "label_smoothing": 0.1},
}
TAIL_TARGET = 10.0  # points of macro recall above plain
SOURCE, TARGET = [1, 5, 7, 8, 9], [0, 2, 3, 4, 6]
FEW = 20
LEARNED = {"epochs": 16, "width": 32, "lr": 0.1}
# Seeing much makes features that serve other classes, too.
MUCH: dict[str, dict[str, float]] = {
    **cut.GENTLE,
    "affine": {"rotate": 15.0, "scale": 0.2, "translate": 0.0},
    "erase": {"probability": 0.5},
    "mixup": {"alpha": 0.4},
    "cutmix": {"alpha": 1.0},
}
FROM_FEW = {"epochs": 40, "width": 32, "lr": 0.05, "batch_size": 20}
TRANSFER = {"freeze_epochs": 8, "unfreeze_epochs": 16, "depth_decay": 0.8}
TRANSFER_TARGET = 10.0  # points of accuracy


def tested(task: Path, model: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Predicted and true labels of the test images."""
    dataset = open_dataset(task / "ingest")
    network, _ = load_model(model)
    logits_NK = predict(network, dataset.test, dataset.input)
    return logits_NK.argmax(1).numpy(), np.asarray(dataset.test.labels_N)


def trained(task: Path, out: Path, start: Path, **values: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `tested`, after stage train."""
    cut.stage(
        "train", task, out, {"train": values}, "--weights", start, "--checkpoints", task / "checkpoints"
    )
    return tested(task, out)


def long_tail(folder: Path, seeds: int) -> dict[str, Any]:
    """Macro recall of each way to balance, by number of epochs and seed."""
    counts = {label: round(LARGEST * IMBALANCE ** (-label / 9)) for label in CLASSES}
    rows = {"train": cut.first("train", counts)}
    rows |= {split: np.arange(len(cut.labels(split))) for split in ("val", "test")}
    cut.write_task(folder, rows, CLASSES)
    budgets = []
    for epochs in TAIL_EPOCHS:
        recalls: dict[str, list[float]] = {name: [] for name in BALANCES}
        for seed in range(seeds):
            for name, values in BALANCES.items():
                params = {**TAIL, **values, "epochs": epochs, "seed": seed}
                found, true = trained(folder, folder / f"{name}-{epochs}-{seed}", folder / "start", **params)
                recall = float(np.mean([(found[true == label] == label).mean() for label in CLASSES]))
                recalls[name].append(round(100 * recall, 2))
                print(
                    f"long tail, {epochs} epochs, {name}, seed {seed}: macro recall {recall:.2%}", flush=True
                )
        gain = {
            name: round(float(np.mean(np.subtract(r, recalls["plain"]))), 2) for name, r in recalls.items()
        }
        met = max(gain.values()) >= TAIL_TARGET
        budgets.append({"epochs": epochs, "macro_recall": recalls, "gain_points": gain, "met": met})
    return {"images": counts, "train": TAIL, "budgets": budgets, "target_points": TAIL_TARGET}


def transfer(folder: Path, seeds: int) -> dict[str, Any]:
    """Accuracy from random weights and from those of the other classes, by seed."""
    every = 10**6
    source, target = folder / "source", folder / "target"
    cut.write_task(source, {s: cut.first(s, dict.fromkeys(SOURCE, every)) for s in cut.SPLITS}, SOURCE, MUCH)
    few = {split: cut.first(split, dict.fromkeys(TARGET, count)) for split, count in
           (("train", FEW), ("val", FEW), ("test", every))}  # fmt: skip
    cut.write_task(target, few, TARGET)
    trained(source, source / "learned", source / "start", **LEARNED)
    learned = target / "learned"
    learned.mkdir()
    (learned / "model.safetensors").write_bytes((source / "learned/model.safetensors").read_bytes())
    (learned / "start.json").write_text('{"weights": "of the other classes"}', encoding="utf-8")
    rows = []
    for seed in range(seeds):
        found, true = trained(target, target / f"scratch-{seed}", target / "start", **FROM_FEW, seed=seed)
        moved, _ = trained(target, target / f"transfer-{seed}", learned, **FROM_FEW, **TRANSFER, seed=seed)
        low, high = drop_interval(moved == true, found == true, 10_000, 0)
        rows.append(
            {
                "seed": seed,
                "accuracy_scratch": float((found == true).mean()),
                "accuracy_transfer": float((moved == true).mean()),
                "gain_points": round(100 * float((moved == true).mean() - (found == true).mean()), 2),
                "gain_points_ci95": [round(low, 2), round(high, 2)],
            }
        )
        print(f"transfer, seed {seed}: {rows[-1]}", flush=True)
    return {
        "images_a_class": FEW,
        "source": {**LEARNED, "augment": MUCH},
        "target": FROM_FEW,
        "transfer": TRANSFER,
        "seeds": rows,
    }


def main() -> None:
    """Measure both, and write what each technique gave."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    seeds = parser.parse_args().seeds
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        tail = long_tail(Path(scratch) / "tail", seeds)
        moved = transfer(Path(scratch) / "transfer", seeds)
    payload = {
        "long_tail": tail,
        "transfer": {
            **moved,
            "target_points": TRANSFER_TARGET,
            "met": all(row["gain_points_ci95"][0] > 0 for row in moved["seeds"]),
            "aim_met": float(np.mean([row["gain_points"] for row in moved["seeds"]])) >= TRANSFER_TARGET,
        },
    }
    print(write_result("training", payload, ("torch",)))


if __name__ == "__main__":
    main()

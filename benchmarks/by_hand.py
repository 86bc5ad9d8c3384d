"""What an engineer who knows a set reaches by hand with the compute that `auto` has, beside what `auto` reached.

    python benchmarks/by_hand.py [--table] [NAME …]

For the sets that benchmarks/datasets.py has run with the budget normal, on the same packed images. Each recipe below
trains for the same work as the dense network of that run, with the augmentations that somebody would name who has seen
the images. The one with the best validation accuracy counts; with --table nothing runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, about
from sets import MAKERS, ROOT

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.policy import of_images
from tasks.core.auto.budget import DENSE, cost_of, length
from tasks.core.common.files import read_json, write_json
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.data.dataset import Dataset, Split, open_dataset
from tasks.core.distributed.world import world
from tasks.core.models.architectures import build, published
from tasks.core.models.transfer import take_over
from tasks.core.training.loop import epochs, predict
from tasks.core.training.recipes import recipe_of, spec_of

RESULT, BUDGET = RESULTS / "by_hand.json", "normal"
SGD = {"optimizer": "sgd", "weight_decay": 5e-4, "schedule": "cosine", "warmup_epochs": 1.0}
ADAMW = {"optimizer": "adamw", "weight_decay": 0.05, "schedule": "one_cycle", "warmup_epochs": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "resnet_small, SGD": {"arch": "resnet_small", "width": 32, "lr": 0.1, **SGD},
    "resnet_small, AdamW": {"arch": "resnet_small", "width": 64, "lr": 3e-3, **ADAMW},
}
LEARNED = {"efficientnet_lite0, learned": {"arch": "timm/efficientnet_lite0", "lr": 1e-3, **ADAMW}}
LEARNED_SIDE = 48  # pixels: from here on somebody would think of learned weights
KNOWN: dict[str, dict[str, Any]] = {  # of each set, what may change without changing the class
    "digits": {"crop": 2, "rotate": 10},
    "shapes": {"flip_vertical": True, "flip_horizontal": True, "permute_channels": True, "crop": 4},
    "sixty": {"flip_vertical": True, "flip_horizontal": True, "permute_channels": True, "crop": 4},
    "letters": {"crop": 6, "rotate": 10, "scale": 0.1, "permute_channels": True},
    "glyphs": {"crop": 2, "scale": 0.1},
    "hundred_thousand": {"crop": 2},
    "emoji": {"flip_horizontal": True, "crop": 6, "trivialaugment": True},
    "icons": {"flip_horizontal": True, "crop": 4, "trivialaugment": True},
    "fashion_few": {"flip_horizontal": True, "crop": 2, "erase": 0.3},
    "fashion_tail": {"flip_horizontal": True, "crop": 2},
    "fashion_noisy": {"flip_horizontal": True, "crop": 2},
    "fashion_colour": {"flip_horizontal": True, "crop": 4, "permute_channels": True},
}


def trained(dataset: Dataset, values: dict[str, Any], augment: dict[str, Any]) -> dict[str, float]:
    """Accuracy on validation and test images."""
    params = TrainParams(**values)
    cost = cost_of(build(spec_of(params, dataset)), dataset.input)
    size = length(DENSE[BUDGET], cost, len(dataset.train))
    lr = params.lr * (size.batch_size / 128 if params.optimizer == "sgd" else 1)
    params = params.model_copy(update={"epochs": size.epochs, "batch_size": size.batch_size, "lr": lr})
    off = dict.fromkeys(("flip_horizontal", "flip_vertical"), False)
    asked = AugmentParams(**{**off, "crop": 0, **augment})
    policy = of_images(asked, dataset.input)
    torch.manual_seed(params.seed)
    model = build(spec_of(params, dataset))
    if values in LEARNED.values():
        take_over(model, published(values["arch"]))
    augmenter = BatchAugment(policy)
    with world() as ranks:
        parts = (dataset.train, dataset.val, augmenter, len(dataset.classes), ranks)
        for row in epochs(model, recipe_of(params), *parts):
            print(f"  {row.epoch}/{size.epochs}: val accuracy {row.val_accuracy:.2%}", flush=True)

    def accuracy(split: Split) -> float:
        logits_NK = predict(model, split, dataset.input)
        return float((logits_NK.argmax(1).numpy() == np.asarray(split.labels_N)).mean())

    return {"val_accuracy": accuracy(dataset.val), "test_accuracy": accuracy(dataset.test)}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Every recipe on a set, and what `auto` reached there."""
    dataset = open_dataset(folder / "data/ingest")
    colour = dataset.input.shape[2] == 3 and min(dataset.input.shape[:2]) >= LEARNED_SIDE
    tried = {}
    for recipe, values in {**RECIPES, **(LEARNED if colour else {})}.items():
        print(f"{name}: {recipe}", flush=True)
        tried[recipe] = trained(dataset, values, KNOWN[name])
    best = max(tried, key=lambda recipe: tried[recipe]["val_accuracy"])
    auto = read_json(folder / "data/select/metrics.json")["accuracy_dense"]
    tests = sum(read_json(folder / "data/ingest/dataset.json")["counts"]["test"].values())
    by_hand = tried[best]["test_accuracy"]
    return {
        "set": name,
        "recipe": best,
        "accuracy_by_hand": by_hand,
        "accuracy_auto": auto,
        "behind_points": (by_hand - auto) * 100,
        "standard_error_points": 100 * (by_hand * (1 - by_hand) / tests) ** 0.5,
        "tried": tried,
        **about(("torch",)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [("set", "best by hand", "accuracy", "auto", "behind (standard error)"), ("---",) * 5]
    for row in rows:
        behind = f"{row['behind_points']:.1f} ({row['standard_error_points']:.1f})"
        accuracies = [f"{row[key]:.1%}" for key in ("accuracy_by_hand", "accuracy_auto")]
        lines.append((row["set"], row["recipe"], *accuracies, behind))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run the recipes on the sets that are named, or on all that have been run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MAKERS, []], metavar="NAME", help=", ".join(MAKERS))
    parser.add_argument("--table", action="store_true", help="print what was measured")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = read_json(RESULT)["rows"] if RESULT.exists() else []
    if args.table:
        print(table(rows))
        return
    for name in args.names or MAKERS:
        folder = ROOT / ".modelpress/datasets" / f"{name}-{BUDGET}"
        if not (folder / "data/select/metrics.json").exists():
            raise SystemExit(f"{name}: run benchmarks/datasets.py {name} first")
        rows = [row for row in rows if row["set"] != name] + [measure(name, folder)]
        rows.sort(key=lambda row: list(MAKERS).index(row["set"]))
        write_json(RESULT, {"rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()

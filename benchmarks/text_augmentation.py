"""What augmentation of texts gives where there are few: 100 a class, several seeds, with intervals.

    python benchmarks/text_augmentation.py [--seeds 8] [--arch text_bag] [NAME …]

The sets are those of benchmarks/text_sets.py. Each seed draws other texts for training and other weights; the networks of one
seed differ in their augmentation alone. Accuracies are of all test texts; intervals hold for other seeds and other test texts.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, about
from datasets import source_of
from numpy.typing import NDArray
from text_sets import TEXT_MAKERS
from torch import Tensor

from tasks.core.augmentation.augment import augment_of
from tasks.core.augmentation.policy import resolve_policy
from tasks.core.auto.augmentations import IMAGES_OFF, OF_TEXTS
from tasks.core.auto.networks import Network
from tasks.core.auto.questions import TRAIN
from tasks.core.common.files import read_json, write_json
from tasks.core.config.params import AugmentParams, IngestParams, TrainParams
from tasks.core.data.dataset import Dataset, balanced, open_dataset
from tasks.core.distributed.world import world
from tasks.core.evaluation.stats import effect_interval
from tasks.core.models.embeddings import take_embeddings
from tasks.core.training.loop import epochs, predict
from tasks.core.training.recipes import new_network, recipe_of
from tasks.ingest import ingest

A_CLASS, PASSES, BATCH = 100, 10, 16
RESULT = RESULTS / "text_augmentation.json"
NONE = "none"


def right_N(
    few: Dataset,
    network: Network,
    values: dict[str, Any],
    seed: int,
    words: dict[str, Tensor] | None = None,
) -> NDArray[np.bool_]:
    """Whether a network of this seed is right about each test text.

    Args:
        values: of its augmentation.
        words: `keys` and `weight` of embeddings that it begins with.
    """
    params = TrainParams(
        **{**TRAIN, **network.values}, lr=network.lr, dropout=network.dropout, seed=seed, epochs=PASSES, batch_size=BATCH
    )  # fmt: skip
    augment = augment_of(resolve_policy(AugmentParams(**{**IMAGES_OFF, **values}), few))
    torch.manual_seed(seed)
    model = new_network(params, few, augment.brings)
    if words is not None:
        take_embeddings(model, words["keys"], words["weight"], params.vocabulary)
    some = few.val.taken(slice(1))  # that accuracy is shown of, which nobody sees
    with world() as ranks:
        for _ in epochs(model, recipe_of(params), few.train, some, augment, len(few.classes), ranks):
            pass
    return np.asarray(predict(model, few.test, few.input).argmax(1).numpy() == few.test.labels_N)


def measured(name: str, network: Network, seeds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(name)
        ingest(IngestParams(source=str(source)), source, Path(folder))
        data = open_dataset(Path(folder))
        draws = [balanced(data.train.labels_N, A_CLASS * len(data.classes), seed) for seed in range(seeds)]
        drawn = [replace(data, train=data.train.taken(rows)) for rows in draws]
        variants = {NONE: {}} | {c.name: c.values for c in OF_TEXTS}
        found: dict[str, Any] = {}
        without_SN = np.empty(0)
        for variant, values in variants.items():
            right_SN = np.stack([right_N(few, network, values, seed) for seed, few in enumerate(drawn)])
            without_SN = right_SN if variant == NONE else without_SN
            low, high = effect_interval(without_SN, right_SN, 5000, 0)
            gain = float(right_SN.mean() - without_SN.mean()) * 100
            found[variant] = {
                "accuracy": round(float(right_SN.mean()), 4),
                "gain_points": round(gain, 2),
                "gain_ci95": [round(low, 2), round(high, 2)],
                "values": values,
            }
            print(
                f"{name}, {network}, {variant}: {right_SN.mean():.2%}, {gain:+.2f} ({low:+.2f} to {high:+.2f})",
                flush=True,
            )
    return {
        "texts": A_CLASS * len(data.classes),
        "classes": len(data.classes),
        "seeds": seeds,
        "variants": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--arch", default="text_bag")
    parser.add_argument("names", nargs="*", help="sets; all, if none is named")
    args = parser.parse_args()
    kept = read_json(RESULT) if RESULT.exists() else {}
    for name in args.names or list(TEXT_MAKERS):
        network = Network(args.arch, 32)
        kept[f"{name}, {network}"] = {**measured(name, network, args.seeds), **about()}
        write_json(RESULT, kept)


if __name__ == "__main__":
    main()

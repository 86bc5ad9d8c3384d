"""What an encoder of sentences gives where there are few texts: 100 a class, several seeds, with intervals.

    python benchmarks/text_encoders.py FOLDER [--seeds 4] [--arch text_bag] [NAME …]

FOLDER holds the encoder as Hugging Face's transformers writes it (`pip install 'modelpress[encoders]'`). The sets are those of
benchmarks/text_sets.py, the protocol that of benchmarks/text_augmentation.py. Beside a network alone: one whose words begin with
what the encoder says of each (`start.weights`), one that learns what the encoder says of the texts, too (`start.teacher`), both;
and the encoder itself, with a linear classifier.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, about
from datasets import source_of
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from text_augmentation import A_CLASS, NONE, right_N
from text_sets import TEXT_MAKERS
from torch import Tensor

from tasks.core.auto.networks import Network
from tasks.core.common.files import read_json, write_json
from tasks.core.config.params import IngestParams
from tasks.core.data.dataset import Dataset, Split, balanced, open_dataset
from tasks.core.evaluation.stats import effect_interval
from tasks.core.models.embeddings import read_embeddings
from tasks.core.models.sentence_encoder import SentenceEncoder
from tasks.core.training.encoder_targets import encoder_targets
from tasks.ingest import ingest

RESULT = RESULTS / "text_encoders.json"
COMMAND = "python benchmarks/text_encoders.py FOLDER"  # where that is says nothing to others
SHARE = 0.5  # of the loss that is the teacher's, as train.distill_weight has it by default


def measured(
    name: str, network: Network, encoder: SentenceEncoder, words: dict[str, Tensor], seeds: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(name)
        ingest(IngestParams(source=str(source)), source, Path(folder))
        data = open_dataset(Path(folder))
        test_NE = embeddings(encoder, data.test)
        found: dict[str, list[Any]] = {}
        for seed in range(seeds):
            rows = balanced(data.train.labels_N, A_CLASS * len(data.classes), seed)
            few = replace(data, train=data.train.taken(rows))
            train_NE = embeddings(encoder, few.train)
            taught = replace(few, train=replace(few.train, targets_NK=targets(few, train_NE, seed)))
            classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            said_N = classifier.fit(train_NE, few.train.labels_N).predict(test_NE)
            for variant, right in {
                NONE: right_N(few, network, {}, seed),
                "weights": right_N(few, network, {}, seed, words),
                "teacher": right_N(taught, network, {}, seed),
                "both": right_N(taught, network, {}, seed, words),
                "encoder": said_N == data.test.labels_N,
            }.items():
                found.setdefault(variant, []).append(right)
        result: dict[str, Any] = {
            "texts": len(few.train),
            "classes": len(data.classes),
            "seeds": seeds,
            "variants": {},
        }
        alone_SN = np.stack(found[NONE])
        for variant, rights in found.items():
            right_SN = np.stack(rights)
            low, high = effect_interval(alone_SN, right_SN, 5000, 0)
            gain = float(right_SN.mean() - alone_SN.mean()) * 100
            result["variants"][variant] = {
                "accuracy": round(float(right_SN.mean()), 4),
                "gain_points": round(gain, 2),
                "gain_ci95": [round(low, 2), round(high, 2)],
            }
            print(
                f"{name}, {network}, {variant}: {right_SN.mean():.2%}, {gain:+.2f} ({low:+.2f} to {high:+.2f})",
                flush=True,
            )
        return result


def embeddings(encoder: SentenceEncoder, split: Split) -> np.ndarray[Any, np.dtype[np.float32]]:
    return encoder.encode(np.asarray(split.raw_N)).numpy()


def targets(few: Dataset, train_NE: Any, seed: int) -> Any:
    return encoder_targets(train_NE, np.asarray(few.train.labels_N), len(few.classes), SHARE, seed)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--arch", default="text_bag")
    parser.add_argument("names", nargs="*", help="sets; all, if none is named")
    args = parser.parse_intermixed_args()
    encoder, words = SentenceEncoder("FOLDER", args.folder), read_embeddings(args.folder)
    kept = read_json(RESULT) if RESULT.exists() else {}
    for name in args.names or list(TEXT_MAKERS):
        network = Network(args.arch, 32)
        found = measured(name, network, encoder, words, args.seeds)
        kept[f"{name}, {network}"] = {**found, **about(), "command": COMMAND}
        write_json(RESULT, kept)


if __name__ == "__main__":
    main()

"""What simple classifiers reach on the same split: a network that does not beat them knows nothing worth shipping."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.core.common.files import write_json
from tasks.core.common.progress import Progress
from tasks.core.config.cli import main
from tasks.core.config.params import EvaluateParams
from tasks.core.data.dataset import open_dataset
from tasks.core.data.inputs import TextInput
from tasks.core.evaluation.baselines import features, fitted

BASELINES = 4  # of texts 3


def baselines(params: EvaluateParams, data: Path, out: Path) -> None:
    """Write metrics.json, with the accuracy of each on the validation and the test images and the name of the best,
    and predicted.npz, the classes that the best predicts.

    The best is the best on the validation images.

    Args:
        params: how many images they learn from.
        data: the ingested data set.
    """
    dataset = open_dataset(data)
    splits = {"val": dataset.val, "test": dataset.test}
    given = {name: features(split) for name, split in splits.items()}
    accuracy: dict[str, dict[str, float]] = {}
    best, predicted = "", {}
    with Progress("baselines", BASELINES) as progress:
        for name, classifier in fitted(dataset.train, params.baseline_images, params.seed):
            found = {split: classifier.predict(x).astype(np.int64) for split, x in given.items()}
            accuracy[name] = {
                split: float((found[split] == splits[split].labels_N).mean()) for split in splits
            }
            if not best or accuracy[name]["val"] > accuracy[best]["val"]:
                best, predicted = name, found
            progress.step(f"{name}, val accuracy {accuracy[name]['val']:.2%}")
    np.savez_compressed(out / "predicted.npz", **{f"{split}_N": array for split, array in predicted.items()})
    write_json(
        out / "metrics.json",
        {
            "best": best,
            "features": "counts of words" if isinstance(dataset.input, TextInput) else "reduced pixels",
            "examples": min(params.baseline_images, len(dataset.train)),
            "accuracy": accuracy,
        },
    )


if __name__ == "__main__":
    main(baselines, section="evaluate")

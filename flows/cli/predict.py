"""`modelpress predict`: what a selected model says of image files, with ONNX Runtime alone.

image_NHWC: uint8 [N, H, W, C]; logits_NK: float32.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json
from tasks.core.config.params import IngestParams
from tasks.core.data.images import DecodeJob, Target, decode
from tasks.core.runtime.promise import threshold
from tasks.core.runtime.session import predict as logits_of
from tasks.core.runtime.session import session

TOP = 3  # labels shown an image
_BATCH = 256  # images decoded at a time
_MAX_PIXELS = int(IngestParams.model_fields["max_megapixels"].default * 1e6)


@dataclass(frozen=True)
class Prediction:
    """The most probable labels of an image, best first, with their probabilities; whether the best is less probable
    than what the model's promise takes for an answer."""

    image: Path
    labels: list[tuple[str, float]]
    unsure: bool


def predict(model: Path, images: Sequence[Path]) -> list[Prediction]:
    """Labels of image files, which are brought to the model's input by the rules of stage ingest.

    Args:
        model: an ONNX model of stage select, with labels.json beside it.
        images: files.

    Raises:
        BadInput: the model, its labels or an image cannot be used.
    """
    for image in images:
        if not image.is_file():
            raise BadInput(
                f"{image}: {'is a folder: name image files' if image.is_dir() else 'no such file'}"
            )
    if not model.is_file():
        raise BadInput(f"{model}: no such file: `modelpress run` makes data/select/model.onnx")
    run = session(model, len(os.sched_getaffinity(0)))
    shape = run.get_inputs()[0].shape
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[1:]):
        raise BadInput(f"{model}: takes {shape}, not images [N, H, W, C]: not a model of stage select")
    labels = _labels(model.with_name("labels.json"))
    target, least = Target(*shape[1:]), threshold(model)
    found: list[Prediction] = []
    for start in range(0, len(images), _BATCH):
        some = images[start : start + _BATCH]
        logits_NK = logits_of(run, _decoded(some, target))
        if logits_NK.shape[1] != len(labels):
            raise BadInput(f"{model}: has {logits_NK.shape[1]} classes, labels.json beside it {len(labels)}")
        for image, probabilities_K in zip(some, _softmax(logits_NK), strict=True):
            best = np.argsort(-probabilities_K, kind="stable")[:TOP]
            ranked = [(labels[k], float(probabilities_K[k])) for k in best]
            found.append(Prediction(image, ranked, ranked[0][1] < least))
    return found


def as_json(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The content of `--json`."""
    return [
        {
            "image": str(p.image),
            "label": p.labels[0][0],
            "probability": p.labels[0][1],
            "unsure": p.unsure,
            "top": [{"label": label, "probability": value} for label, value in p.labels],
        }
        for p in predictions
    ]


def _labels(path: Path) -> list[str]:
    try:
        return [str(label) for label in read_json(path)]
    except (OSError, ValueError):
        raise BadInput(f"{path}: the list of labels is not there or damaged") from None


def _decoded(images: Sequence[Path], target: Target) -> NDArray[np.uint8]:
    with tempfile.NamedTemporaryFile() as rows:
        done = decode(DecodeJob([os.fsencode(i) for i in images], _MAX_PIXELS, target, rows.name, 0))
        for number, reason in sorted(done.unusable.items()):
            raise BadInput(f"{images[number]}: {reason}")
        return np.fromfile(rows.name, np.uint8).reshape(len(images), *target.shape)


def _softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials_NK = np.exp(logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True))
    probabilities_NK: NDArray[np.float64] = exponentials_NK / exponentials_NK.sum(axis=1, keepdims=True)
    return probabilities_NK

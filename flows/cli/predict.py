"""`modelpress predict`: what a selected model says of image files or of texts, with ONNX Runtime alone.

raw_N: uint8 images [N, H, W, C], or strings [N]; logits_NK: float32.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json
from tasks.core.config.params import IngestParams
from tasks.core.data.images import DecodeJob, Target, decode
from tasks.core.runtime.promise import threshold
from tasks.core.runtime.session import predict as logits_of
from tasks.core.runtime.session import session, takes_texts

TOP = 3  # labels shown an example
_BATCH = 256  # examples predicted at a time
_MAX_PIXELS = int(IngestParams.model_fields["max_megapixels"].default * 1e6)


@dataclass(frozen=True)
class Prediction:
    """The most probable labels of an example, the `kind` (image or text) that is called `given`, best first, with their probabilities; whether the
    best is less probable than what the model's promise takes for an answer."""

    given: str
    kind: str
    labels: list[tuple[str, float]]
    unsure: bool


def predict(model: Path, given: Sequence[str], lines: Path | None = None) -> list[Prediction]:
    """Labels of image files, which are brought to the model's input by the rules of stage ingest, or of texts.

    Args:
        model: an ONNX model of stage select, with labels.json beside it.
        given: image files, or texts where the model takes such.
        lines: a file with a text a line, and no blank one.

    Raises:
        BadInput: the model, its labels or an example cannot be used.
    """
    if not model.is_file():
        raise BadInput(f"{model}: no such file: `modelpress run` makes data/select/model.onnx")
    run = session(model, len(os.sched_getaffinity(0)))
    takes = run.get_inputs()[0]
    if takes_texts(run):
        names = [*given, *_lines(lines)]
        prepared: Callable[[Sequence[str]], NDArray[Any]] = _texts
        kind = "text"
    elif len(takes.shape) == 4 and all(isinstance(side, int) for side in takes.shape[1:]):
        if lines is not None:
            raise BadInput(f"{model}: takes images, and --file is for texts: name image files")
        names, prepared = list(given), partial(_decoded, target=Target(*takes.shape[1:]))
        kind = "image"
        _check_files(names)
    else:
        raise BadInput(
            f"{model}: takes {takes.shape}, not images [N, H, W, C] or texts: not a model of stage select"
        )
    if not names:
        raise BadInput("nothing to predict: name image files, or give a text or --file")
    labels, least = _labels(model.with_name("labels.json")), threshold(model)
    found: list[Prediction] = []
    for start in range(0, len(names), _BATCH):
        some = names[start : start + _BATCH]
        raw_N = prepared(some)
        try:
            logits_NK = logits_of(run, raw_N)
        except BadInput as error:
            raise BadInput(f"{model}: {error}") from None
        if logits_NK.shape[1] != len(labels):
            raise BadInput(f"{model}: has {logits_NK.shape[1]} classes, labels.json beside it {len(labels)}")
        for name, probabilities_K in zip(some, _softmax(logits_NK), strict=True):
            best = np.argsort(-probabilities_K, kind="stable")[:TOP]
            ranked = [(labels[k], float(probabilities_K[k])) for k in best]
            found.append(Prediction(name, kind, ranked, ranked[0][1] < least))
    return found


def _check_files(names: Sequence[str]) -> None:
    for image in map(Path, names):
        if not image.is_file():
            raise BadInput(
                f"{image}: {'is a folder: name image files' if image.is_dir() else 'no such file'}"
            )


def _lines(path: Path | None) -> list[str]:
    """The lines of a file of texts that are not blank."""
    if path is None:
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None


def _texts(texts: Sequence[str]) -> NDArray[np.object_]:
    """As stage ingest normalises them."""
    return np.array([normalize("NFC", text.encode("utf-8", "replace").decode()) for text in texts], object)


def as_json(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The content of `--json`."""
    return [
        {
            p.kind: p.given,
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


def _decoded(images: Sequence[str], target: Target) -> NDArray[np.uint8]:
    with tempfile.NamedTemporaryFile() as rows:
        done = decode(DecodeJob([os.fsencode(i) for i in images], _MAX_PIXELS, target, rows.name, 0))
        for number, reason in sorted(done.unusable.items()):
            raise BadInput(f"{images[number]}: {reason}")
        return np.fromfile(rows.name, np.uint8).reshape(len(images), *target.shape)


def _softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials_NK = np.exp(logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True))
    probabilities_NK: NDArray[np.float64] = exponentials_NK / exponentials_NK.sum(axis=1, keepdims=True)
    return probabilities_NK

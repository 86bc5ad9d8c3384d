"""What stage select promises of a model, in files beside it, so that another machine can check it.

promise.json holds figures, and where they were measured; sample.npz test examples, their labels and what
the model predicted; reference.onnx is the dense model, whose latency the speed-up is relative to.
images_NHWC: uint8, or texts in UTF-8 and where each ends; labels_N, predicted_N: int64, indices of classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json, write_json
from tasks.core.data.dataset import Split, balanced
from tasks.core.data.texts import Texts
from tasks.core.runtime.session import predict, session

SAMPLE = 500  # test examples at most
MODEL, PROMISE, SAMPLES, REFERENCE = "model.onnx", "promise.json", "sample.npz", "reference.onnx"
COMPANIONS = (PROMISE, SAMPLES, REFERENCE)


@dataclass(frozen=True)
class Promise:
    """Figures of a model on the machine that `fingerprint` describes.

    Attributes:
        sha256: of the files, by name.
        accuracy: on the sample, a fraction.
        agreement: of the predictions with those of the sample, a fraction: all of them.
        p50_ms: latency of the model, one image on one thread.
        reference_p50_ms: that of the reference.
        speedup_b1: how many times as fast the model is, the median over rounds of the two in turn.
        max_drop_points: of accuracy, the bar that the model was selected under.
        fingerprint: see runtime.fingerprint.
        unsure_below: the confidence from which on its answers are as precise as evaluate.precision asks; 0: all are,
            None: it is not known.
    """

    sha256: dict[str, str]
    accuracy: float
    agreement: float
    p50_ms: float
    reference_p50_ms: float
    speedup_b1: float
    max_drop_points: float
    fingerprint: dict[str, Any]
    unsure_below: float | None = None


@dataclass(frozen=True)
class Sample:
    """Examples that the model is checked on, their labels, and the classes that it predicted of them."""

    raw_N: NDArray[np.uint8] | Texts
    labels_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64]


def write(
    folder: Path,
    test: Split,
    p50_ms: float,
    reference_p50_ms: float,
    speedup_b1: float,
    max_drop_points: float,
    fingerprint: dict[str, Any],
    unsure_below: float | None,
) -> None:
    """Write sample.npz and promise.json into `folder`, where model.onnx and reference.onnx are."""
    some = test.taken(balanced(test.labels_N, SAMPLE, 0))
    labels_N = some.labels_N
    predicted_N = predict(session(folder / MODEL, 1), some.raw_N).argmax(1)
    raw: dict[str, Any]
    if isinstance(some.raw_N, Texts):
        raw = {"texts": some.raw_N.packed(), "ends_N": np.cumsum(some.raw_N.lengths_N)}
    else:
        raw = {"images_NHWC": np.array(some.raw_N)}
    np.savez_compressed(folder / SAMPLES, **raw, labels_N=labels_N, predicted_N=predicted_N)
    promise = Promise(
        sha256={name: _digest(folder / name) for name in (MODEL, SAMPLES, REFERENCE)},
        accuracy=float((predicted_N == labels_N).mean()),
        agreement=1.0,
        p50_ms=p50_ms,
        reference_p50_ms=reference_p50_ms,
        speedup_b1=speedup_b1,
        max_drop_points=max_drop_points,
        fingerprint=fingerprint,
        unsure_below=unsure_below,
    )
    write_json(folder / PROMISE, asdict(promise))


def threshold(model: Path) -> float:
    """The confidence below which an answer of `model` is withheld: 0 where no promise says one."""
    path = model.with_name(PROMISE)
    try:
        return float(read_json(path).get("unsure_below") or 0.0)
    except FileNotFoundError:
        return 0.0
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"{path}: not the promise that stage select writes") from None


def read(model: Path) -> tuple[Promise, Sample]:
    """The promise beside `model`, and its sample.

    Raises:
        BadInput: a file is missing, or is not the one that the promise is about.
    """
    path = model.with_name(PROMISE)
    try:
        promise = Promise(**read_json(path))
        for file in (model, model.with_name(SAMPLES), model.with_name(REFERENCE)):
            name = MODEL if file == model else file.name
            if _digest(file) != promise.sha256[name]:
                raise BadInput(f"{file}: its SHA-256 is not that in {path}: one of the two was changed")
    except OSError as error:
        raise BadInput(
            f"{error.filename}: {(error.strerror or 'cannot be read').lower()}: the model is checked with "
            f"{', '.join(COMPANIONS)} of stage select beside it"
        ) from None
    except (LookupError, TypeError, ValueError):
        raise BadInput(f"{path}: not the promise that stage select writes") from None
    with np.load(model.with_name(SAMPLES)) as arrays:
        texts = "texts" in arrays
        raw_N = Texts.of(arrays["texts"], arrays["ends_N"]) if texts else arrays["images_NHWC"]
        return promise, Sample(raw_N, arrays["labels_N"], arrays["predicted_N"])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""`modelpress check`: whether a selected model does on this machine what stage select promised of it.

That holds if at least AGREEMENT of its predictions on the sample are the promised ones, and its speed-up over
the reference is at least SPEED of the promised one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.common.errors import BadInput
from tasks.core.runtime import promise
from tasks.core.runtime.latency import Latency, latencies
from tasks.core.runtime.promise import Promise, Sample
from tasks.core.runtime.saturation import has_8bit_weights
from tasks.core.runtime.session import fingerprint, predict, session

AGREEMENT = 0.99  # of the predictions with the promised ones, at least
SPEED = 0.8  # of the promised speed-up, at least
REPEATS = 300  # timed runs of either model


@dataclass(frozen=True)
class Here:
    """What the model does on this machine; fields as in Promise."""

    accuracy: float
    agreement: float
    p50_ms: float
    reference_p50_ms: float
    speedup_b1: float
    fingerprint: dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """A promise, what was found here, and how the two compare.

    Attributes:
        promised: what stands beside the model.
        here: the same, measured.
        least_speedup: the speed-up that is enough.
        overflows: whether the model's weights are too large for this processor's 8-bit sums.
    """

    promised: Promise
    here: Here
    least_speedup: float
    overflows: bool

    @property
    def accuracy_holds(self) -> bool:
        return self.here.agreement >= AGREEMENT

    @property
    def speed_holds(self) -> bool:
        return self.here.speedup_b1 >= self.least_speedup

    @property
    def holds(self) -> bool:
        return self.accuracy_holds and self.speed_holds

    @property
    def verdict(self) -> str:
        """One sentence."""
        same = f"{self.here.agreement:.2%} of the predictions are the promised ones"
        fast = f"it is {self.here.speedup_b1:.2f} times as fast as the reference"
        if self.holds:
            return f"What was promised holds here: {same}, and {fast}."
        missed = []
        if not self.accuracy_holds:
            likely = ", likely because 8-bit sums overflow on this processor: weights of 7 bits avoid it"
            missed.append(f"{same}, not {AGREEMENT:.0%}{likely if self.overflows else ''}")
        if not self.speed_holds:
            missed.append(f"{fast}, not {self.least_speedup:.2f} times")
        return f"What was promised does not hold here: {'; '.join(missed)}."


def check(model: Path, enough: float = math.inf) -> Checked:
    """Run the sample beside `model`, and time the model against its reference.

    A speed-up that is too small is measured once more, and the better one counts.

    Args:
        model: a model of stage select, with what stands beside it there.
        enough: a speed-up that need not be exceeded, whatever was promised.

    Raises:
        BadInput: the model or a file beside it is missing, or was changed.
    """
    if not model.is_file():
        raise BadInput(f"{model}: no such file: `modelpress run` makes data/select/model.onnx")
    promised, sample = promise.read(model)
    predicted_N = predict(session(model, 1), sample.raw_N).argmax(1)
    least = min(enough, SPEED * promised.speedup_b1)
    timed = _time(model, sample)
    if timed["model"].speedup < least:
        timed = max(timed, _time(model, sample), key=lambda both: both["model"].speedup)
    here = Here(
        accuracy=float((predicted_N == sample.labels_N).mean()),
        agreement=float((predicted_N == sample.predicted_N).mean()),
        p50_ms=timed["model"].p50_ms,
        reference_p50_ms=timed["reference"].p50_ms,
        speedup_b1=timed["model"].speedup,
        fingerprint=fingerprint(),
    )
    overflows = here.fingerprint["u8s8_saturates"] and has_8bit_weights(model)
    return Checked(promised, here, least, overflows)


def _time(model: Path, sample: Sample) -> dict[str, Latency]:
    """Of the model and of its reference, in turn, one image on one thread."""
    models = {"model": model, "reference": model.with_name(promise.REFERENCE)}
    return latencies(models, sample.raw_N, batch=1, threads=1, repeats=REPEATS, reference="reference")


def as_json(checked: Checked) -> dict[str, Any]:
    """The content of `--json`."""
    return {**asdict(checked), "holds": checked.holds, "verdict": checked.verdict}


def rows(checked: Checked) -> list[list[str]]:
    """The table: what it is, as promised, here, and whether it holds where that is asked."""
    sides = (checked.promised, checked.here)

    def figure(what: str, form: str, key: str, holds: str = "") -> list[str]:
        return [what, *(form.format(getattr(side, key)) for side in sides), holds]

    def machine(what: str, key: str) -> list[str]:
        values = (side.fingerprint[key] for side in sides)
        return [what, *(_yes(value) if isinstance(value, bool) else value for value in values), ""]

    return [
        figure("predictions as promised", "{:.2%}", "agreement", _yes(checked.accuracy_holds)),
        figure("accuracy on the sample", "{:.2%}", "accuracy"),
        figure("times faster than the reference", "{:.2f}", "speedup_b1", _yes(checked.speed_holds)),
        figure("latency, one image, one thread", "{:.3f} ms", "p50_ms"),
        figure("latency of the reference", "{:.3f} ms", "reference_p50_ms"),
        machine("processor", "cpu_model"),
        machine("integer dot products (VNNI)", "vnni"),
        machine("8-bit sums overflow", "u8s8_saturates"),
        machine("ONNX Runtime", "onnxruntime"),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"

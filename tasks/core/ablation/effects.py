"""What each technique gave, from the trainings of `modelpress ablate`: effects, their intervals, and the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.ablation.techniques import ON_NETWORK, Effect, Kind, Plan
from tasks.core.common.files import read_json
from tasks.core.evaluation.stats import effect_interval

CORRECT, METRICS = "correct.npy", "metrics.json"


@dataclass(frozen=True)
class Measured:
    """An effect in points of accuracy, with its 95 % interval, and what else there is to say."""

    technique: str
    kind: Kind
    points: float
    low: float
    high: float
    having: float  # accuracies
    lacking: float
    note: str

    @property
    def verdict(self) -> str:
        """helps, costs, or not to be told."""
        return "helps" if self.low > 0 else "costs" if self.high < 0 else "not to be told"


def folder(runs: Path, variant: str, number: int) -> Path:
    """Where a training of a variant is kept."""
    return runs / f"{variant.replace(' ', '-').replace(',', '')}-{number}"


def measure(plan: Plan, runs: Path, seeds: int, resamples: int) -> list[Measured]:
    """The effects of `plan`, in its order."""
    found: dict[str, tuple[NDArray[np.bool_], list[dict[str, Any]]]] = {}
    for variant in plan.variants:
        folders = [folder(runs, variant.name, number) for number in range(seeds)]
        correct_SN = np.stack([np.load(path / CORRECT) for path in folders])
        found[variant.name] = correct_SN, [read_json(path / METRICS) for path in folders]
    return [_effect(effect, found, resamples) for effect in plan.effects]


def _effect(
    effect: Effect, found: dict[str, tuple[NDArray[np.bool_], list[dict[str, Any]]]], resamples: int
) -> Measured:
    (having_SN, having), (lacking_SN, lacking) = found[effect.having], found[effect.lacking]
    low, high = effect_interval(lacking_SN, having_SN, resamples, 0)
    return Measured(
        effect.technique,
        effect.kind,
        float(100 * (having_SN.mean() - lacking_SN.mean())),
        low,
        high,
        float(having_SN.mean()),
        float(lacking_SN.mean()),
        _note(effect, having, lacking),
    )


def _note(effect: Effect, having: list[dict[str, Any]], lacking: list[dict[str, Any]]) -> str:
    """What it costs or gains beside accuracy, and how often training has diverged."""
    one, other = having[0], lacking[0]
    notes = []
    if effect.technique in ON_NETWORK and "size_bytes" in one:
        notes.append(
            f"{one['scheme']}: file {one['size_bytes_before'] / one['size_bytes']:.1f} times smaller"
        )
    elif "macs" in one and "macs" in other and one["macs"] != other["macs"]:
        notes.append(f"{one['macs'] / other['macs']:.2f} times the multiply-accumulates")
    for name, runs in (("with it", having), ("without it", lacking)):
        if diverged := sum(run.get("diverged", False) for run in runs):
            notes.append(f"diverged {name}: {diverged} of {len(runs)}")
    return "; ".join(notes)

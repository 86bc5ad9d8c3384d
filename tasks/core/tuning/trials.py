"""What the search and the process that trains its trials say to each other.

The search itself computes nothing: it does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tasks.core.config.params import TrainParams


@dataclass(frozen=True)
class Task:
    """What a worker needs to know once: the data and the budget that all trials share."""

    data: Path
    policy: dict[str, Any]
    weights: Path
    epochs: int
    train_fraction: float
    seed: int


@dataclass(frozen=True)
class Answer:
    """What an epoch of a trial gave: its validation accuracy, None if training diverged; the network's
    multiply-accumulates; what is wrong with the trial's values, if something is."""

    accuracy: float | None = None
    macs: int = 0
    refused: str = ""


class Worker(Protocol):
    """A trainer somewhere else. It trains the next epoch while the search looks at other trials."""

    def begin(self, params: TrainParams) -> None:
        """Start a trial; its first epoch runs at once."""

    def answer(self) -> Answer:
        """Wait for the epoch that runs. Raises StageFailed if the process has died."""

    def proceed(self) -> None:
        """Let the trial run its next epoch."""

    def stop(self) -> None:
        """End the process."""

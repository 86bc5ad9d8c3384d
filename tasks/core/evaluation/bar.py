"""The bar: how much accuracy a candidate may lose, and how that is told, from many examples or from few."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FEWEST = 5  # examples lost and none gained that are no chance: the sign test's one-sided p is 1/32


@dataclass(frozen=True)
class Loss:
    """Accuracy that a candidate loses against the reference on the same examples, in points; negative when it gains.

    Attributes:
        points: the loss.
        low, high: its 95 % interval.
        error: its standard error.
    """

    points: float
    low: float
    high: float
    error: float


@dataclass(frozen=True)
class Bar:
    """What a candidate may lose on the validation examples: at most `max_drop_points` at the upper end of the 95 %
    interval. Where there are too few examples for that ever to be seen, the loss itself may be as much: allowed one standard
    error more, the fastest of several was mostly the one that had been lucky, and lost points on test examples.

    Attributes:
        max_drop_points: of accuracy.
        examples: for validation.
    """

    max_drop_points: float
    examples: int

    @property
    def needed(self) -> float:
        """Images that the bar needs, a whole number: on fewer not even a loss of so many points can be told from none."""
        return float(np.ceil(100 * FEWEST / self.max_drop_points)) if self.max_drop_points else 0.0

    @property
    def resolvable_points(self) -> float:
        """The smallest loss that can be told from none on these examples."""
        return 100 * FEWEST / self.examples

    @property
    def provable(self) -> bool:
        """Whether the examples suffice for the interval to decide; a bar of 0 asks for it, whatever they can tell."""
        return self.examples >= self.needed

    def examples_to_prove(self, loss: Loss) -> float:
        """Validation examples, a whole number, on which the same loss would be within the bar, were as many answers in a
        hundred changed: the interval narrows by the root of their number. Infinite where the loss is as large as the bar.
        """
        room = self.max_drop_points - loss.points
        return math.inf if room <= 0 else math.ceil(self.examples * ((loss.high - loss.points) / room) ** 2)

    def passes(self, loss: Loss) -> bool:
        """Whether a candidate with this loss on the validation examples is within the bar."""
        if self.provable:
            return loss.high <= self.max_drop_points
        return loss.points <= self.max_drop_points

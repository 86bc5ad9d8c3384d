"""A source, read whole: every example of it one row, with its label, place and digest.

N: rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tasks.core.common.progress import Progress
from tasks.core.data.near import Near
from tasks.core.data.packing import ACROSS, CONFLICT, SCATTERED, WITHIN
from tasks.core.data.sources import LeftOut


@dataclass(frozen=True)
class Written:
    """What was packed.

    Attributes:
        digest: SHA-256 over the arrays.
        layout: what dataset.json says of how they are to be read.
        statistics: and of the examples for training.
    """

    digest: str
    layout: dict[str, Any]
    statistics: dict[str, Any]


@dataclass(kw_only=True)
class Samples(ABC):
    """One row an example that was to be read, whatever the source.

    `name(i)` is what row i is called within the source. `places_N` is as in tasks.core.data.packing: UNUSABLE where
    reading failed, else the split that was given, or OPEN. `rules` are those of this source,
    `general` those of this kind. Rows of the same number in `groups_N` belong together.
    """

    noun: ClassVar[str]  # what people call the examples, of which there are several
    one: ClassVar[str]  # and what they call one
    alike: ClassVar[str]  # what duplicates share
    general: ClassVar[list[str]]

    classes: list[str]
    name: Callable[[int], str]
    labels_N: npt.NDArray[np.int32]
    places_N: npt.NDArray[np.int8]
    digests_N: npt.NDArray[np.uint64]
    left_out: LeftOut
    warnings: list[str]
    rules: list[str]
    groups_N: npt.NDArray[np.int64] | None = None

    def reason(self, place: int) -> str:
        """Why rows of this `place` are left out, but for what was UNUSABLE."""
        return {
            CONFLICT: f"same {self.alike} under two labels",
            WITHIN: "duplicate in the same split",
            ACROSS: f"duplicate of {self.one} in another split",
            SCATTERED: "of a group that stands in another split",
        }[place]

    @abstractmethod
    def pack(self, out: Path, step: Callable[[int], None]) -> Written:
        """Write the arrays of every split into `out`; `step` is told of every so many rows that are done.

        Raises:
            OSError: the disk is full.
        """

    @abstractmethod
    def near(self, out: Path, seed: int) -> Near:
        """Examples held out that are nearly one for training, of the arrays in `out`."""

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the report says of this kind of example alone."""


class Paced:
    """Progress in steps of some 2 %, however small the pieces. A context manager."""

    def __init__(self, what: str, total: int) -> None:
        self._progress = Progress(what, total)
        self._waiting = 0

    def step(self, count: int) -> None:
        """`count` more are done."""
        self._waiting += count
        done = self._progress.done + self._waiting
        if self._waiting * 50 >= self._progress.total or done == self._progress.total:
            self._progress.step(count=self._waiting)
            self._waiting = 0

    def __enter__(self) -> Paced:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

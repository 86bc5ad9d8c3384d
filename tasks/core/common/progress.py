"""Progress of long work: a bar on a terminal, plain lines everywhere else.

A plain line reads `train 3/10: loss 0.412`, which is also what the flow parses for its UI.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Row = TypeVar("Row")

LINE = re.compile(r"^(?P<what>[a-z]+) (?P<done>\d+)/(?P<total>\d+)(?:: (?P<note>.*))?$")


class Progress:
    """Counts steps of `what` up to `total`. A context manager. `quiet` says nothing at all."""

    def __init__(self, what: str, total: int, quiet: bool = False) -> None:
        self.what, self.total, self.quiet, self.done = what, total, quiet, 0
        bar = sys.stdout.isatty() and not quiet
        self._bar = tqdm(total=total, desc=what, leave=True) if bar else None

    def step(self, note: str = "", count: int = 1) -> None:
        """`count` more are done; `note` says what they gave."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif not self.quiet:
            print(f"{self.what} {self.done}/{self.total}" + (f": {note}" if note else ""), flush=True)

    def expect(self, total: int) -> None:
        """There will be `total` steps."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def reach(self, done: int, note: str = "") -> None:
        """`done` are done in all, as when a run goes on where another one ended."""
        self.step(note, done - self.done)

    def over(self, rows: Iterable[Row], note: Callable[[Row], str]) -> list[Row]:
        """All `rows`, each a step as soon as it is there."""
        seen = []
        for row in rows:
            self.step(note(row))
            seen.append(row)
        return seen

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

"""What the terminal shows during a run: bars where it is a terminal, plain lines elsewhere.

It listens to the log of Prefect's task runs, which also feeds Prefect's UI.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.engine.dag import Plan
from tasks.core.common.progress import LINE

_LOGGER = "prefect.task_runs"
_MARKS = {
    "unchanged": "[dim]unchanged",
    "restored": "[cyan]restored from the cache",
    "ran": "[green]done",
    "failed": "[red]failed",
}


class Display(logging.Handler):
    """A context manager that shows what the stages of `plan` do."""

    def __init__(self, plan: Plan, bars: bool) -> None:
        super().__init__(logging.INFO)
        self._console = Console()
        self._started: dict[str, float] = {}
        self._tails: dict[str, deque[str]] = {}
        self._progress: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        if bars:
            self._progress = Progress(
                TextColumn("{task.fields[stage]}"),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            for stage in plan.stages:
                self._rows[stage.name] = self._progress.add_task(
                    stage.name, start=False, total=1, stage=stage.name, note="[dim]waiting"
                )

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line of a stage, or the change of its state that `outcome` names."""
        stage, line = getattr(record, "task_run_name", None), record.getMessage()
        outcome = getattr(record, "outcome", None)
        if stage is None or line.startswith("Finished in state"):
            return
        if self._progress is None:
            self._plain(stage, outcome, line)
        elif stage in self._rows:
            self._bar(self._progress, stage, outcome, line)

    def _plain(self, stage: str, outcome: str | None, line: str) -> None:
        if outcome == "started":
            self._started[stage] = time.monotonic()
            return
        if outcome in _MARKS and stage in self._started:
            line = f"{outcome} in {time.monotonic() - self._started[stage]:.1f} s"
        print(f"[{stage}] {line}", flush=True)

    def _bar(self, progress: Progress, stage: str, outcome: str | None, line: str) -> None:
        row = self._rows[stage]
        if outcome == "started":
            progress.start_task(row)
            progress.update(row, total=None, note="")
            self._tails[stage] = deque(maxlen=20)
        elif outcome in _MARKS:
            progress.update(row, total=1, completed=1, note=_MARKS[outcome])
            progress.stop_task(row)
            if outcome == "failed":
                for last in self._tails[stage]:
                    progress.console.print(f"{stage}: {last}", markup=False, highlight=False)
        elif match := LINE.match(line):
            progress.update(
                row, total=int(match["total"]), completed=int(match["done"]), note=match["note"] or ""
            )
        elif stage in self._tails:
            self._tails[stage].append(line)

    def __enter__(self) -> Display:
        logging.getLogger(_LOGGER).addHandler(self)
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        logging.getLogger(_LOGGER).removeHandler(self)

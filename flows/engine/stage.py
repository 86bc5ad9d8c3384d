"""One stage, run by DVC in a child process."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from flows.engine.child import Child
from tasks.core.common.errors import BadInput, StageFailed

Outcome = Literal["ran", "restored", "unchanged"]

_TAIL = 60  # lines of output in the message of a failure
_EXITED = re.compile(r"exited with (-?\d+)")
_UNCHANGED = re.compile(r"^(Stage )?'.+' didn't change, skipping$")
_RESTORED = re.compile(r"^Stage '.+' is cached - skipping run, checking out outputs$")
_HINTS = re.compile(
    r"^(To track the changes with git|\tgit add|To enable auto staging|\tdvc config|Use `dvc push`)"
)


class Killed(StageFailed):
    """The stage's process was ended by a signal: not its own doing, so worth another try."""


class Children:
    """The children that run now; `stop` ends them and whatever is started later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running: set[Child] = set()
        self.stopped = False

    def start(self, command: list[str], env: dict[str, str]) -> Child:
        with self._lock:
            if self.stopped:
                raise StageFailed("the run is being stopped")
            child = Child(command, env=env)
            self._running.add(child)
            return child

    def ended(self, child: Child) -> None:
        with self._idle:
            self._running.discard(child)
            self._idle.notify_all()

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            for child in self._running:
                child.stop()

    def wait(self) -> None:
        """Wait until no child runs any more."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running)


def reproduce(
    name: str,
    children: Children,
    on_line: Callable[[str], None],
    *,
    force: bool = False,
    timeout_s: float = 0.0,
) -> Outcome:
    """`dvc repro --single-item NAME`, waiting for DVC's locks.

    Args:
        name: the stage, as DVC addresses it.
        children: where the child is entered while it runs.
        on_line: called with every line of output as it comes.
        force: run it even if nothing changed.
        timeout_s: end it after this many seconds; 0 is never.

    Returns:
        What DVC did: ran the stage, restored its outputs from the cache, or nothing.

    Raises:
        BadInput: the stage ended with exit code 2; its last line.
        Killed: it was ended by a signal.
        StageFailed: it failed in another way, or took longer than `timeout_s`; its last lines.
    """
    words = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    if force:
        words.append("--force")
    outcome: Outcome = "ran"

    def read(line: str) -> None:
        nonlocal outcome
        if _UNCHANGED.match(line):
            outcome = "unchanged"
        elif _RESTORED.match(line):
            outcome = "restored"
        on_line(line)

    command(name, words, children, read, timeout_s=timeout_s)
    return outcome


def command(
    name: str,
    words: list[str],
    children: Children,
    on_line: Callable[[str], None],
    *,
    timeout_s: float = 0.0,
) -> None:
    """Run a stage, or DVC for it, in a child process. Parameters and exceptions are those of `reproduce`."""
    tail: deque[str] = deque(maxlen=_TAIL)
    late = threading.Event()
    with children.start(words, {**os.environ, "PYTHONUNBUFFERED": "1"}) as child:

        def give_up() -> None:
            late.set()
            child.stop()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        if timeout_s:
            timer.start()
        try:
            for line in child.lines():
                if not _HINTS.match(line):
                    tail.append(line)
                    on_line(line)
            code = child.wait()
        finally:
            timer.cancel()
            children.ended(child)
    if children.stopped:
        raise StageFailed(f"{name} was stopped with the run")
    if late.is_set():
        raise StageFailed(f"{name} took longer than {timeout_s:g} s and was ended")
    if code:
        raise _failure(name, code, list(tail), by_dvc="dvc" in words)


def _failure(name: str, code: int, tail: list[str], by_dvc: bool) -> Exception:
    reported = [int(m[1]) for line in tail if line.startswith("ERROR") and (m := _EXITED.search(line))]
    status = reported[-1] if reported else code
    output = [
        line for line in tail if not line.startswith(("ERROR: failed to reproduce", "> ", "Running stage"))
    ]
    # A stage that foresaw its failure says so in a line that begins with its name.
    said = [line for line in output if line.startswith(f"{name.partition('@')[0]}: ")] or output
    if status == 2 and (reported or not by_dvc) and said:
        return BadInput(said[-1])
    last = f": {said[-1]}" if said else ""
    lines = "\n".join(tail)
    if status < 0 or status > 128:
        return Killed(f"{name} was ended by signal {-status if status < 0 else status - 128}{last}\n{lines}")
    return StageFailed(f"{name} failed with exit code {status}{last}\n{lines}")

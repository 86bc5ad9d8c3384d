"""One run at a time in a checkout."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.engine.settings import STATE
from tasks.core.common.errors import BadInput

_held = False


class Busy(BadInput):
    """Another process is at work in the checkout."""


@contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the checkout's run lock; a block inside another one of the same process is let through.

    The kernel frees the lock when the process ends, however it ends, so it is never stale.

    Raises:
        Busy: another process is running the pipeline here.
    """
    global _held
    if _held:
        yield
        return
    (root / STATE).mkdir(exist_ok=True)
    with (root / STATE / "run.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Busy(f"another run is at work in {root} (process {holder}): wait for its end") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _held = True
        try:
            yield
        finally:
            _held = False

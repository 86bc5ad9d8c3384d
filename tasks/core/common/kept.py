"""What outlives a run and nobody versions: journals of searches and checkpoints of trainings.

A work (a search, a training) is named after its parameters and inputs, so that it never goes on from what another
one has left. Experiments of DVC that run beside each other share what is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

MOST = 16  # folders in one place that stay when they were left
_WORKSPACES = (".dvc", "tmp", "exps")  # where DVC runs `dvc exp run --temp` and `dvc queue start`


def of_checkout(place: Path) -> Path:
    """`place`, a relative path such as .modelpress/tune, in the checkout: also when asked in a temporary workspace
    that DVC has made of it for an experiment."""
    for folder in Path.cwd().parents:
        if folder.parts[-3:] == _WORKSPACES:
            return folder.parents[2] / place
    return place


@contextmanager
def kept(place: Path, key: str) -> Iterator[Path]:
    """A folder of `place` for the work `key`, held by this process alone until the block ends.

    It holds what an earlier process has left that worked on the same. One that still does keeps its folder, and this
    one gets another. Of those that nobody holds, the newest MOST stay.
    """
    place = of_checkout(place)
    place.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        names = (key if number == 1 else f"{key}-{number}" for number in count(1))
        folder = next(place / name for name in names if _taken(place / name, stack))
        folder.mkdir(exist_ok=True)
        folder.touch()
        _clean(place)
        yield folder


def _taken(folder: Path, stack: ExitStack) -> bool:
    """Whether this process has got `folder`, which it holds as long as `stack`. The kernel frees it when its holder
    dies."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), blocking=False)
    try:
        stack.enter_context(lock)
    except Timeout:
        return False
    return True


def _clean(place: Path) -> None:
    """Remove the oldest folders beyond MOST that nobody holds."""
    folders = sorted((p for p in place.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for folder in folders[:-MOST]:
        with ExitStack() as stack:
            if _taken(folder, stack):
                shutil.rmtree(folder, ignore_errors=True)

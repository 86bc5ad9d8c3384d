"""What DVC cannot hash: it reads every file under a folder that a stage depends on, and ends, or waits for ever, at the
first that cannot be read, without a rule for leaving it out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tasks.core.common.errors import BadInput
from tasks.core.data.sources import LOOP, NOT_A_FILE, show

_NAMED = 3  # of the files that are in the way


def check_hashable(path: Path) -> None:
    """Raises BadInput, which names the first files in the way, unless DVC can hash all that is under `path`."""
    names = list(islice(unhashable(path), _NAMED + 1))
    if not names:
        return
    named = ", ".join(f"{name} ({reason})" for name, reason in names[:_NAMED])
    more = ", and more" if len(names) > _NAMED else ""
    raise BadInput(f"{path}: DVC cannot hash {named}{more}: remove or rename what is in the way")


def unhashable(path: Path) -> Iterator[tuple[str, str]]:
    """What DVC cannot hash under `path`, hidden files among it, and why. DVC follows links to files, not to folders."""
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            if reason := _reason(inner := Path(folder, name)):
                yield show(bytes(inner.relative_to(path))), reason


def _reason(path: Path) -> str:
    try:
        path.name.encode()
        mode = path.stat().st_mode
    except UnicodeEncodeError:
        return "name that is not UTF-8"
    except OSError as error:
        return {errno.ELOOP: LOOP, errno.ENOENT: "link to nothing"}.get(
            error.errno or 0, error.strerror or ""
        )
    if stat.S_ISDIR(mode):
        return ""
    if not stat.S_ISREG(mode):
        return NOT_A_FILE
    return "" if os.access(path, os.R_OK) else "no permission to read it"

"""A zip or tar of an image folder: unpacked beside the output for as long as it is read, within bounds."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tasks.core.common.errors import BadInput
from tasks.core.data.sources import SPLIT_NAMES
from tasks.core.data.tables import TABLES

LARGEST_SHARE = 0.9  # of the free disk, that the unpacked files may take
_BLOCK, _LEAST = 1 << 20, 1 << 12  # bytes read at a time; what a file takes of a disk, at least
_OF_MACS = "__MACOSX"  # what a Mac adds to a zip
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
)

RULES = [
    "Of an archive only regular files are unpacked; a path that leaves it, a link and a device are refused.",
    "Where all of an archive lies in one folder, that folder is the source.",
]


@contextmanager
def unpacked(archive: Path, scratch: Path) -> Iterator[Path]:
    """The folder with what is in `archive`, below `scratch`, which is removed when the block ends.

    Raises:
        BadInput: it is no zip or tar, damaged, encrypted, or larger than the disk has room for; or a member leaves it.
            One that the block raises names the archive in place of the folder.
        OSError: the disk is full.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        room = int(LARGEST_SHARE * shutil.disk_usage(scratch).free)
        for name, size, content in _members(archive):
            room -= max(size, _LEAST)
            if room < 0:
                raise BadInput(f"{archive}: unpacked it is larger than the disk has room for")
            _write(scratch / _inside(name, archive), content)
        folder = _top(scratch)
        try:
            yield folder
        except BadInput as error:
            raise BadInput(str(error).replace(str(folder), str(archive))) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and content of every regular file, in the archive's order."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for info in zipped.infolist():
                    if not info.is_dir():
                        with zipped.open(info) as file:
                            yield info.filename, info.file_size, _blocks(file.read, archive)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarred:
                for member in tarred:
                    if member.isdir():
                        continue
                    content = tarred.extractfile(member) if member.isreg() else None
                    if content is None:
                        raise BadInput(f"{archive}: {member.name} is no regular file")
                    yield member.name, member.size, _blocks(content.read, archive)
                _check_end(tarred, archive)
        else:
            raise BadInput(f"{archive}: neither a folder nor a zip or tar of one")
    except _DAMAGED as error:
        raise _damaged(archive, error) from None


def _check_end(tarred: tarfile.TarFile, archive: Path) -> None:
    """A damaged header ends a tar as if nothing came behind it; and only the end of a compressed one tells whether
    all of it was whole."""
    assert tarred.fileobj is not None
    tarred.fileobj.seek(tarred.offset)
    if any(any(block) for block in _blocks(tarred.fileobj.read, archive)):
        raise tarfile.ReadError("a header within it is damaged")


def _blocks(read: Callable[[int], bytes], archive: Path) -> Iterator[bytes]:
    try:
        while block := read(_BLOCK):
            yield block
    except _DAMAGED as error:
        raise _damaged(archive, error) from None


def _damaged(archive: Path, error: Exception) -> BadInput:
    return BadInput(f"{archive}: damaged or not readable ({str(error) or type(error).__name__})")


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BadInput(f"{archive}: {name!r} would be written outside the folder that it is unpacked to")
    return path


def _write(path: Path, content: Iterator[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.writelines(content)


def _top(folder: Path) -> Path:
    """The folder, or the only one in it that is neither a split nor a class."""
    entries = [
        entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != _OF_MACS
    ]
    if len(entries) != 1 or not entries[0].is_dir() or os.fsencode(entries[0].name.lower()) in SPLIT_NAMES:
        return folder
    (only,) = entries
    holds_more = any(entry.is_dir() or entry.suffix.lower() in TABLES for entry in only.iterdir())
    return _top(only) if holds_more else folder

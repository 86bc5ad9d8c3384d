"""Obtaining a public data set: from whichever source answers first, always the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

from tasks.core.common.errors import BadInput
from tasks.core.data.fashion_mnist import SHA256, SIZES

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where that package puts its files
COMMAND_SECONDS = 180
CONNECT_SECONDS = 15
DOWNLOAD_SECONDS = 600
_CHUNK = 1 << 20

Say = Callable[[str], None]


class _NoAnswer(Exception):
    """This source does not give the files. The message is why."""


def fetch_fashion_mnist(folder: Path, say: Say) -> None:
    """Put Fashion-MNIST's four IDX files, unpacked, into `folder`, unless they are there.

    Args:
        folder: made if need be. Only whole, verified files ever appear in it.
        say: is told what happens, a line at a time.

    Raises:
        BadInput: no source gave the files; one line for each that was asked.
    """
    if all(_is_whole(folder / name, name) for name in SHA256):
        say(f"{folder}: already there, {len(SHA256)} files verified")
        return
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, where a folder is to be made; move it away")
    folder.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for title, source in SOURCES.items():
        say(f"asking {title}")
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            try:
                archives = source(Path(scratch))
                for name in SHA256:
                    _unpack(archives / f"{name}.gz", Path(scratch) / name)
            except _NoAnswer as reason:
                failures.append(f"  {title}: {reason}")
                say(f"no answer from {title}: {reason}")
                continue
            folder.mkdir(exist_ok=True)
            for name in SHA256:
                (Path(scratch) / name).replace(folder / name)
        say(f"{folder}: {len(SHA256)} files from {title}, verified")
        return
    raise BadInput(f"{folder}: no source gave Fashion-MNIST\n" + "\n".join(failures))


def _is_whole(path: Path, name: str) -> bool:
    if not path.is_file() or path.stat().st_size != SIZES[name]:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SHA256[name]


def _unpack(archive: Path, path: Path) -> None:
    """Gunzip one file, and refuse all but the bytes that it must hold."""
    try:
        with gzip.open(archive) as packed, path.open("wb") as file:
            # One byte more than expected is enough to know; an archive that swells is not unpacked.
            file.write(packed.read(SIZES[path.name] + 1))
    except (EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError) as error:
        raise _NoAnswer(f"{archive.name} is missing or damaged ({error})") from None
    if not _is_whole(path, path.name):
        raise _NoAnswer(f"{archive.name} does not hold the bytes expected (its SHA-256 differs)")


def _from_installed(_: Path) -> Path:
    if not INSTALLED.is_dir():
        raise _NoAnswer(f"{INSTALLED} is not there")
    return INSTALLED


def _from_debian(scratch: Path) -> Path:
    """Download the package and unpack it: neither root nor installation is needed."""
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise _NoAnswer(f"{command} is not there")
    apt = ["apt-get", "-o", "Acquire::Retries=1"]  # more would only delay the next source
    try:
        _run([*apt, "download", PACKAGE], scratch)
    except _NoAnswer:
        # No package lists, as in most container images: fetch our own, beside the system's.
        apt += ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
        (scratch / "lists" / "partial").mkdir(parents=True)
        (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
        _run([*apt, "update"], scratch)
        _run([*apt, "download", PACKAGE], scratch)
    for package in scratch.glob(f"{PACKAGE}_*.deb"):
        _run(["dpkg-deb", "-x", package.name, "unpacked"], scratch)
        return scratch / "unpacked" / INSTALLED.relative_to("/")
    raise _NoAnswer("apt-get downloaded nothing")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise _NoAnswer(f"{command[0]} took more than {COMMAND_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise _NoAnswer((lines or [f"{command[0]} failed with {done.returncode}"])[0])


def _from_mirrors(scratch: Path) -> Path:
    """The original archives, from the addresses that torchvision knows."""
    try:
        from torchvision.datasets import FashionMNIST
    except ImportError as error:
        raise _NoAnswer(f"torchvision cannot be imported ({error})") from None
    failure = "torchvision knows no mirror"
    for mirror in FashionMNIST.mirrors:
        try:
            for name, _ in FashionMNIST.resources:
                _download(f"{mirror}{name}", scratch / name)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            failure = f"{mirror}: {error}"
        else:
            return scratch
    raise _NoAnswer(failure)


def _download(url: str, path: Path) -> None:
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer, path.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {DOWNLOAD_SECONDS} s")


SOURCES: dict[str, Callable[[Path], Path]] = {
    "the installed Debian package": _from_installed,
    f"Debian's package {PACKAGE}": _from_debian,
    "torchvision's mirrors": _from_mirrors,
}

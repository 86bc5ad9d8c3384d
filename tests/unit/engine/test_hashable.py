"""flows/engine/hashable.py on what file systems hold."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.engine.hashable import check_hashable, unhashable
from tasks.core.common.errors import BadInput


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the name of a socket is short
        unix.bind(path.name)


def _latin(path: Path) -> None:
    Path(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9.png")).touch()


KINDS: dict[str, Callable[[Path], object]] = {
    "link that loops": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "not a regular file": _socket,
    "name that is not UTF-8": _latin,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What DVC hashes: files, one of them hidden, links to a file and to the folder itself."""
    inner = tmp_path / "data/cat"
    inner.mkdir(parents=True)
    (inner / "1.png").write_text("one")
    (inner / ".hidden").write_text("two")
    (inner / "2.png").symlink_to("1.png")
    (inner / "up").symlink_to(tmp_path / "data")
    return tmp_path / "data"


def hashed_by_dvc(folder: Path) -> None:
    project = folder.parent / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text(f"stages: {{s: {{cmd: none, deps: ['{folder}']}}}}")
    with Repo.init(str(project), no_scm=True) as repo:
        repo.stage.load_one(str(project / "dvc.yaml"), "s").deps[0].save()


def test_nothing_is_named_when_dvc_can_hash_all(folder: Path) -> None:
    hashed_by_dvc(folder)
    assert list(unhashable(folder)) == []
    check_hashable(folder)


@pytest.mark.parametrize("reason", KINDS)
def test_file_is_named_when_dvc_cannot_hash_it(reason: str, folder: Path) -> None:
    KINDS[reason](folder / "cat/odd.png")
    with pytest.raises((OSError, UnicodeError)):
        hashed_by_dvc(folder)
    ((name, said),) = unhashable(folder)
    assert said == reason
    assert name == ("cat/caf\\xe9.png" if reason.startswith("name") else "cat/odd.png")


def test_pipe_is_named_when_dvc_would_wait_for_ever(folder: Path) -> None:
    os.mkfifo(folder / "cat/pipe")
    assert list(unhashable(folder)) == [("cat/pipe", "not a regular file")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_is_named_when_it_may_not_be_read(folder: Path) -> None:
    (folder / "cat/1.png").chmod(0)
    with pytest.raises(OSError):
        hashed_by_dvc(folder)
    assert ("cat/1.png", "no permission to read it") in unhashable(folder)


def test_first_files_are_named_when_many_are_in_the_way(folder: Path) -> None:
    for number in range(5):
        (folder / f"cat/{number}.jpg").symlink_to("nowhere")
    with pytest.raises(
        BadInput, match=r"DVC cannot hash cat/\d.jpg \(link to nothing\), .*, and more: remove"
    ):
        check_hashable(folder)

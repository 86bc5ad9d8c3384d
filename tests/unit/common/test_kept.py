"""What outlives a run: one folder a work, one process at a time, and not for ever."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.core.common.kept import MOST, kept, of_checkout

pytestmark = pytest.mark.slow  # processes

HOLD = """
import sys
from pathlib import Path
from tasks.core.common.kept import kept
with kept(Path(sys.argv[1]), "work") as folder:
    (folder / "left").write_text("by the other")
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def other(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the work `work` in `place`; it has said where."""
    words = [sys.executable, "-c", HOLD, str(place)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(place / "work")
        yield process


def test_folder_holds_what_was_left_when_the_same_work_is_asked_again(tmp_path: Path) -> None:
    with kept(tmp_path, "work") as folder:
        (folder / "left").write_text("before")
    with kept(tmp_path, "work") as again:
        assert (again / "left").read_text() == "before"
    with kept(tmp_path, "another") as fresh:
        assert not list(fresh.iterdir())


def test_folder_is_another_when_a_process_holds_the_first(tmp_path: Path) -> None:
    with other(tmp_path), kept(tmp_path, "work") as folder:
        assert folder == tmp_path / "work-2"
        assert not list(folder.iterdir())


def test_folder_is_that_of_the_dead_when_its_holder_was_killed(tmp_path: Path) -> None:
    with other(tmp_path) as process:
        process.kill()
        process.wait()
    with kept(tmp_path, "work") as folder:
        assert (folder / "left").read_text() == "by the other"


def test_oldest_folders_are_removed_when_there_are_too_many_and_nobody_holds_them(tmp_path: Path) -> None:
    with other(tmp_path):
        os.utime(tmp_path / "work", (0, 0))
        for number in range(MOST + 2):
            with kept(tmp_path, f"later-{number}") as folder:
                os.utime(folder, (number + 1, number + 1))
        with kept(tmp_path, "last"):
            pass
        left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert {"work", "last", f"later-{MOST + 1}"} <= left
    assert "later-0" not in left
    assert len(left) == MOST + 1  # the one that is held, too


@pytest.mark.parametrize("queue", ["standalone/tmpabc", "tmpabc"])
def test_place_is_that_of_the_checkout_when_asked_in_a_workspace_of_an_experiment(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / ".dvc" / "tmp" / "exps" / queue
    workspace.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    assert of_checkout(Path(".modelpress/tune")) == tmp_path / ".modelpress" / "tune"
    monkeypatch.chdir(tmp_path)
    assert of_checkout(Path(".modelpress/tune")) == Path(".modelpress/tune")

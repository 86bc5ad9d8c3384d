"""Fetching: a data set of four tiny files takes Fashion-MNIST's place, every source is a real one."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks import fetch
from tasks.core.common.errors import BadInput
from tasks.fetch import fetch_fashion_mnist

NAMES = list(fetch.SHA256)
CONTENT = {name: name.encode() * 100 for name in NAMES}
INSTALLED, DEBIAN, MIRRORS = fetch.SOURCES


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other bytes are the right ones, and no package is installed."""
    for name, content in CONTENT.items():
        monkeypatch.setitem(fetch.SHA256, name, hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(fetch.SIZES, name, len(content))
    monkeypatch.setattr(fetch, "INSTALLED", tmp_path / "absent")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves only the named sources."""

    def choose(*titles: str) -> None:
        monkeypatch.setattr(fetch, "SOURCES", {title: fetch.SOURCES[title] for title in titles})

    return choose


def archives(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    return folder


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served over HTTP, under the address that torchvision has for Fashion-MNIST."""
    from torchvision.datasets import FashionMNIST

    served = tmp_path / "served"
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `apt-get` of our own, which downloads a package once lists were updated; returns its folder."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb to unpack Debian packages with")
    root = tmp_path / "package"
    archives(root / "usr/share/datasets/fashion-mnist", CONTENT)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {fetch.PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n"
    )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    package = bin_folder / "package.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(package)], check=True, capture_output=True)
    script = bin_folder / "apt-get"
    script.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *update*) touch {bin_folder}/updated; exit;; esac\n'
        f"[ -e {bin_folder}/updated ] || {{ echo 'E: Unable to locate package'; exit 100; }} >&2\n"
        f"cp {package} {fetch.PACKAGE}_1_all.deb\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(fetch, "INSTALLED", Path("/usr/share/datasets/fashion-mnist"))
    return bin_folder


def test_fetch_asks_nobody_when_the_files_are_there(tmp_path: Path, only: Callable[..., None]) -> None:
    only()
    said: list[str] = []
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    fetch_fashion_mnist(folder, said.append)
    assert said == [f"{folder}: already there, 4 files verified"]


def test_fetch_unpacks_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(INSTALLED)
    monkeypatch.setattr(fetch, "INSTALLED", archives(tmp_path / "installed", CONTENT))
    fetch_fashion_mnist(tmp_path / "deep" / "set", print)
    assert written(tmp_path / "deep" / "set") == CONTENT
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set"]


@pytest.mark.slow
@pytest.mark.parametrize("has_lists", [False, True])
def test_fetch_unpacks_the_package_without_installing_it(
    tmp_path: Path, apt: Path, only: Callable[..., None], has_lists: bool
) -> None:
    only(DEBIAN)
    if has_lists:
        (apt / "updated").touch()
    fetch_fashion_mnist(tmp_path / "set", print)
    assert written(tmp_path / "set") == CONTENT


def test_fetch_downloads_from_the_mirror_when_others_do_not_answer(
    tmp_path: Path, mirror: Path, only: Callable[..., None]
) -> None:
    only(INSTALLED, MIRRORS)
    archives(mirror, CONTENT)
    said: list[str] = []
    fetch_fashion_mnist(tmp_path / "set", said.append)
    assert written(tmp_path / "set") == CONTENT
    assert said[1].startswith(f"no answer from {INSTALLED}")
    assert said[-1] == f"{tmp_path / 'set'}: 4 files from {MIRRORS}, verified"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(gzip.compress(b"x" * len(CONTENT[NAMES[2]]))), "SHA-256 differs"),
        (lambda path: path.write_bytes(gzip.compress(bytes(10**7))), "SHA-256 differs"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "missing or damaged"),
        (lambda path: path.write_bytes(b"<html>"), "missing or damaged"),
        (lambda path: path.unlink(), "404"),
    ],
)
def test_fetch_refuses_and_leaves_nothing_when_one_file_is_wrong(
    tmp_path: Path,
    mirror: Path,
    only: Callable[..., None],
    spoil: Callable[[Path], object],
    reason: str,
) -> None:
    only(INSTALLED, MIRRORS)
    spoil(archives(mirror, CONTENT) / f"{NAMES[2]}.gz")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=reason) as caught:
        fetch_fashion_mnist(tmp_path / "set", print)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'set'}: no source gave Fashion-MNIST"
    assert [line.strip().split(":")[0] for line in lines[1:]] == [INSTALLED, MIRRORS]
    assert sorted(tmp_path.iterdir()) == before


def test_fetch_puts_it_right_when_a_file_there_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(INSTALLED)
    monkeypatch.setattr(fetch, "INSTALLED", archives(tmp_path / "installed", CONTENT))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / NAMES[0]).write_bytes(b"damaged")
    (folder / "notes.txt").write_bytes(b"mine")
    fetch_fashion_mnist(folder, print)
    assert written(folder) == {**CONTENT, "notes.txt": b"mine"}


@pytest.mark.slow
def test_fetch_says_why_when_apt_fails(tmp_path: Path, apt: Path, only: Callable[..., None]) -> None:
    only(DEBIAN)
    (apt / "apt-get").write_text("#!/bin/sh\necho 'W: hm' >&2; echo 'E: no such package' >&2; exit 100\n")
    with pytest.raises(BadInput, match="E: no such package"):
        fetch_fashion_mnist(tmp_path / "set", print)


@pytest.mark.slow
def test_fetch_gives_up_when_apt_takes_too_long(
    tmp_path: Path, apt: Path, only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(DEBIAN)
    monkeypatch.setattr(fetch, "COMMAND_SECONDS", 0.2)
    (apt / "apt-get").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(BadInput, match=r"apt-get took more than 0\.2 s"):
        fetch_fashion_mnist(tmp_path / "set", print)


def test_fetch_refuses_when_a_file_stands_where_the_folder_should(tmp_path: Path) -> None:
    (tmp_path / "set").touch()
    with pytest.raises(BadInput, match="set: is a file"):
        fetch_fashion_mnist(tmp_path / "set", print)

"""Archives of image folders, and what strangers put into them."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.data import archives
from tests.unit.test_ingest import load, make, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "pets", np.random.default_rng(0), {"cat": 20, "dog": 30})


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
@pytest.mark.parametrize("inside", [".", "pets"])
def test_archive_gives_what_its_folder_gives_when_it_is_ingested(
    folder: Path, kind: str, inside: str
) -> None:
    root = folder.parent if inside == "pets" else folder
    made = shutil.make_archive(str(folder.parent.parent / f"{folder.parent.name}-made"), kind, root, inside)
    of_folder, of_archive = (
        load(run(folder) / "dataset.json"),
        load((out := run(Path(made))) / "dataset.json"),
    )
    assert of_archive == of_folder
    assert not [path for path in out.iterdir() if "unpacked" in path.name], "nothing is left of it"
    assert set(archives.RULES) <= set(load(out / "report.json")["rules"])


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return path


def refused(archive: Path) -> str:
    with pytest.raises(BadInput) as caught, archives.unpacked(archive, archive.with_name("scratch")):
        pass
    assert not archive.with_name("scratch").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a/../../out.png"])
def test_archive_is_refused_when_a_path_leaves_it(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    zipped(archive, **{name: b"x"})
    assert "would be written outside" in refused(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_archive_is_refused_when_a_member_is_no_regular_file(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        member = tarfile.TarInfo("cat/1.png")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    assert "cat/1.png is no regular file" in refused(archive)


def test_archive_is_refused_before_it_fills_the_disk_when_it_is_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "a.zip", cat__1=bytes(50 << 20))
    assert archive.stat().st_size < 100_000
    monkeypatch.setattr(archives, "LARGEST_SHARE", (10 << 20) / shutil.disk_usage(tmp_path).free)
    assert "larger than the disk has room for" in refused(archive)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"\x1f\x8b\x08 no gzip", b"text"])
def test_file_is_refused_when_it_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert "a.zip: " in refused(tmp_path / "a.zip")


def spoilt(folder: Path, kind: str, where: float) -> Path:
    """An archive of `folder` with 200 bytes of zeros in it."""
    made = Path(shutil.make_archive(str(folder.parent / "made"), kind, folder))
    content = bytearray(made.read_bytes())
    at = int(len(content) * where)
    content[at : at + 200] = bytes(200)
    made.write_bytes(content)
    return made


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["zip", "gztar", "xztar"])
def test_archive_is_refused_in_one_line_when_it_is_damaged(folder: Path, kind: str, where: float) -> None:
    assert "damaged or not readable" in refused(spoilt(folder, kind, where))


def test_tar_is_refused_when_a_header_within_it_is_damaged(folder: Path) -> None:
    made = Path(shutil.make_archive(str(folder.parent / "made"), "tar", folder))
    content = made.read_bytes()
    at = content.rindex(b"././@PaxHeader", 0, content.index(b"./dog/010.png"))
    made.write_bytes(content[:at] + bytes(512) + content[at + 512 :])
    assert "a header within it is damaged" in refused(made)


def test_archive_is_refused_when_it_is_cut_short(folder: Path) -> None:
    made = Path(shutil.make_archive(str(folder.parent / "made"), "gztar", folder))
    made.write_bytes(made.read_bytes()[: made.stat().st_size // 2])
    assert "damaged or not readable" in refused(made)


def test_refusal_names_the_archive_when_what_is_in_it_is_no_data_set(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", notes=b"x")
    with pytest.raises(BadInput, match=r"a\.zip: no image in a class folder"):
        run(archive)

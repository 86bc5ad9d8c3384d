"""Folders of images as people keep them, and what else lies there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.data.sources import OPEN, TEST, TRAIN, VAL, Found, Scan, check_classes, find_images

RNG = np.random.default_rng(0)
RGB_HWC = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
GREY_HW = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
MILLION = 10**6


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def listed(found: Found) -> list[tuple[str, str, int]]:
    return [
        (os.fsdecode(found.paths[i]), found.classes[label], int(split))
        for i, (label, split) in enumerate(zip(found.labels_N, found.splits_N, strict=True))
    ]


# --- folders -----------------------------------------------------------------------------------------


def test_find_images_gives_classes_and_open_splits_when_folders_are_classes(tmp_path: Path) -> None:
    tree(tmp_path, "b/1.png", "a/2.JPG", "a/1.webp")
    assert listed(find_images(tmp_path)) == [
        ("a/1.webp", "a", OPEN),
        ("a/2.JPG", "a", OPEN),
        ("b/1.png", "b", OPEN),
    ]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_find_images_gives_the_splits_when_folders_are_splits(tmp_path: Path, val: str) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/b/2.png", "test/a/3.png")
    assert set(listed(find_images(tmp_path))) == {
        ("train/a/1.png", "a", TRAIN),
        ("train/b/1.png", "b", TRAIN),
        (f"{val}/b/2.png", "b", VAL),
        ("test/a/3.png", "a", TEST),
    }


def test_find_images_takes_train_as_a_class_when_other_classes_stand_beside_it(tmp_path: Path) -> None:
    tree(tmp_path, "train/1.png", "tram/1.png")
    assert find_images(tmp_path).classes == ["train", "tram"]


def test_find_images_refuses_when_two_folders_are_one_split(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    with pytest.raises(BadInput, match="val and valid are the same split"):
        find_images(tmp_path)


def test_find_images_sorts_by_the_bytes_of_paths_when_folders_are_nested(tmp_path: Path) -> None:
    tree(tmp_path, "a/x.png", "a/x/1.png", "a/x/deep/2.png", "a/x-1.png", "a/é.png", "b/1.png")
    found = find_images(tmp_path)
    paths = [found.paths[i] for i in range(len(found.paths))]
    assert paths == sorted(paths)
    assert len(paths) == 6
    assert found.labels_N.tolist() == [0, 0, 0, 0, 0, 1]


def test_find_images_counts_what_it_passes_over_by_reason(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/notes.txt", "a/.hidden.png", "a/.thumbs/2.png", "readme.md", "b/1.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    assert find_images(tmp_path).left_out.counts == {
        "not an image by its extension": 1,
        "hidden": 2,
        "not in a class folder": 1,
        "not a regular file": 1,
    }


def test_find_images_warns_when_a_class_folder_is_empty(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "c/1.png", "d/readme.txt")
    (tmp_path / "b").mkdir()
    found = find_images(tmp_path)
    assert found.classes == ["a", "c"]
    assert found.labels_N.tolist() == [0, 1]
    assert found.warnings == [f"class folder {name} holds no image and is left out" for name in "bd"]


def test_find_images_follows_links_only_to_files_inside_the_folder(tmp_path: Path) -> None:
    source = tree(tmp_path / "set", "a/1.png", "b/1.png")
    outside = tree(tmp_path / "other", "2.png")
    (source / "a" / "in.png").symlink_to(source / "b" / "1.png")
    (source / "a" / "out.png").symlink_to(outside / "2.png")
    (source / "a" / "folder").symlink_to(source / "b")
    (source / "a" / "parent").symlink_to(source)
    (source / "a" / "itself.png").symlink_to(source / "a" / "itself.png")
    (source / "a" / "there.png").symlink_to(source / "a" / "and back.png")
    (source / "a" / "and back.png").symlink_to(source / "a" / "there.png")
    os.mkfifo(source / "b" / "queue")
    (source / "a" / "queue.png").symlink_to(source / "b" / "queue")
    (source / "a" / "dangling.png").symlink_to(source / "nowhere.png")
    (source / "c").symlink_to(outside)
    found = find_images(source)
    assert [path for path, _, _ in listed(found)] == ["a/1.png", "a/in.png", "b/1.png"]
    assert found.left_out.counts == {
        "link that leaves the folder": 2,
        "link to a folder": 1,
        "link to nothing": 1,
        "link that loops": 4,
        "not a regular file": 2,
    }


def test_find_images_is_refused_when_two_class_folders_look_alike(tmp_path: Path) -> None:
    tree(tmp_path, r"caf\xe9/1.png")
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(odd)  # noqa: PTH102
    Path(os.fsdecode(odd + b"/2.png")).write_bytes(b"x")
    with pytest.raises(BadInput, match=r"two class folders are both shown as caf\\xe9; rename one"):
        find_images(tmp_path)


def test_find_images_goes_on_when_a_folder_vanishes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "a/1.png", "a/inner/2.png", "b/1.png")
    listing = Scan.listing

    def late(scan: Scan, folder: bytes) -> Any:
        if folder == b"a/inner/":
            shutil.rmtree(tmp_path / "a" / "inner")
        return listing(scan, folder)

    monkeypatch.setattr(Scan, "listing", late)
    found = find_images(tmp_path)
    assert [path for path, _, _ in listed(found)] == ["a/1.png", "b/1.png"]
    assert found.left_out.listed == [{"path": "a/inner/", "reason": "folder that vanished while it was read"}]


def test_find_images_keeps_names_when_they_hold_unicode_blanks_and_foreign_bytes(tmp_path: Path) -> None:
    tree(tmp_path, "grüne Äpfel/bild 1.png", "星/a\nb.png")
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(odd)  # noqa: PTH102
    Path(os.fsdecode(odd + b"/\xff.png")).write_bytes(b"x")
    found = find_images(tmp_path)
    assert found.classes == [r"caf\xe9", "grüne Äpfel", "星"]
    assert found.paths[0] == b"caf\xe9/\xff.png"


def test_folder_is_refused_when_every_image_seems_to_be_a_class(tmp_path: Path) -> None:
    left_out = find_images(tree(tmp_path, "a/1.png", "b/1.png")).left_out
    with pytest.raises(
        BadInput, match=r"1,001 classes, and at most 1,000 are taken: is each image a class\?"
    ):
        check_classes([str(number) for number in range(1001)], tmp_path, left_out)

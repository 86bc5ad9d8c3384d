"""IDX files, which hold many images each."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.data.idx import has_idx, open_idx
from tasks.core.data.sources import OPEN, TEST, TRAIN

RNG = np.random.default_rng(0)
RGB_HWC = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
GREY_HW = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
MILLION = 10**6


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.write_bytes(
        struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("t10k", 3)):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", RNG.integers(0, 256, (count, 4, 5)))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.arange(count) % 3)
    return tmp_path


def test_open_idx_gives_both_files_one_after_the_other(idx: Path) -> None:
    found = open_idx(idx)
    assert has_idx(idx)
    assert found.classes == ["0", "1", "2"]
    assert (found.height, found.width) == (4, 5)
    assert found.labels_N.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert found.splits_N.tolist() == [TRAIN] * 6 + [TEST] * 3
    assert (found.name(5), found.name(6)) == ("train-images-idx3-ubyte#5", "t10k-images-idx3-ubyte#0")


def test_open_idx_leaves_splits_open_when_there_is_no_test(idx: Path) -> None:
    for kind in ("images-idx3", "labels-idx1"):
        (idx / f"t10k-{kind}-ubyte").unlink()
    assert set(open_idx(idx).splits_N.tolist()) == {OPEN}


def test_open_idx_names_classes_when_they_are_listed(idx: Path) -> None:
    (idx / "classes.txt").write_text("cat\nnone of these\nhot dog\nbird\n", encoding="utf-8")
    write_idx(idx / "train-labels-idx1-ubyte", np.array([0, 2, 2, 2, 0, 0]))
    write_idx(idx / "t10k-labels-idx1-ubyte", np.array([0, 2, 2]))
    found = open_idx(idx)
    assert found.classes == ["cat", "hot dog"]
    assert found.labels_N.tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1]
    assert found.warnings == [
        f"class {name} has no image and is left out" for name in ("none of these", "bird")
    ]


def truncate(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def swap(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").rename(folder / "train-images-idx3-ubyte")
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(6))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "train-images-idx3-ubyte: 135 bytes long, but its header speaks of 136"),
        (swap, "train-images-idx3-ubyte: not an IDX file of images"),
        (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b""), "not an IDX file of labels"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "test-labels-idx1-ubyte is missing"),
        (lambda f: write_idx(f / "t10k-labels-idx1-ubyte", np.zeros(4)), "3 images, but 4 labels"),
        (lambda f: write_idx(f / "t10k-images-idx3-ubyte", np.zeros((3, 5, 5))), "must be of one size"),
        (lambda f: write_idx(f / "train-images-idx3-ubyte", np.zeros((0, 5, 5))), "holds no images"),
        (lambda f: (f / "classes.txt").write_text("a\nb\n"), "names 2 classes, but the labels go up to 2"),
        (lambda f: (f / "classes.txt").write_text("a\nb\na\n"), "a stands there twice"),
        (lambda f: write_idx(f / "test-labels-idx1-ubyte", np.zeros(3)), "are the same; keep one"),
    ],
)
def test_open_idx_refuses_when_files_do_not_fit(
    idx: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(idx)
    with pytest.raises(BadInput, match=message):
        open_idx(idx)

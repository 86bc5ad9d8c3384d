"""IDX files, the format of MNIST and its kin: a header of big-endian integers, then bare uint8.

Format: http://yann.lecun.com/exdb/mnist/ (magic number, then one 32-bit length a dimension).
Shapes: N images, H high, W wide.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.data import fashion_mnist
from tasks.core.data.sources import OPEN, TEST, TRAIN

_NAME = re.compile(r"(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte")
_MAGIC = {"images": 0x00000803, "labels": 0x00000801}  # uint8, in 3 dimensions or in 1

RULES = [
    "IDX files give train and, if there, test (or t10k); without test, both val and test are drawn from "
    "train.",
    "Class names are the lines of classes.txt; else Fashion-MNIST's own, if its labels are those; else "
    "the numbers. A class without an image is no class.",
]


@dataclass(frozen=True)
class ImagesFile:
    """`count` images lie in `path` from `offset` on, as bare uint8 [H, W]."""

    path: Path
    offset: int
    count: int


@dataclass(frozen=True)
class IdxSet:
    """The files of a folder; labels and splits of their images, one file after the other."""

    classes: list[str]
    files: list[ImagesFile]
    height: int
    width: int
    labels_N: npt.NDArray[np.int32]
    splits_N: npt.NDArray[np.int8]
    warnings: list[str]

    def name(self, i: int) -> str:
        """Image i as FILE#NUMBER."""
        for file in self.files:
            if i < file.count:
                return f"{file.path.name}#{i}"
            i -= file.count
        raise IndexError(i)


def has_idx(folder: Path) -> bool:
    """Whether `folder` directly holds an IDX file of images or labels, by name."""
    return any(_NAME.fullmatch(path.name) for path in folder.iterdir())


def open_idx(folder: Path) -> IdxSet:
    """The set in `folder`; reads headers and labels, not the images.

    Raises:
        BadInput: a file is missing, truncated or of another kind, or they do not fit together.
    """
    pairs = _pairs(folder)
    files: list[ImagesFile] = []
    labels: list[npt.NDArray[np.int32]] = []
    shapes: dict[tuple[int, int], str] = {}
    for images_path, labels_path in pairs.values():
        (count, height, width), offset = _header(images_path, "images")
        (labelled,), labels_offset = _header(labels_path, "labels")
        if count != labelled:
            raise BadInput(f"{images_path}: {count} images, but {labelled} labels in {labels_path.name}")
        files.append(ImagesFile(images_path, offset, count))
        labels.append(np.fromfile(labels_path, np.uint8, offset=labels_offset).astype(np.int32))
        shapes[height, width] = images_path.name
    if len(shapes) > 1:
        sizes = ", ".join(f"{name} {height}x{width}" for (height, width), name in shapes.items())
        raise BadInput(f"{folder}: the images of IDX files must be of one size ({sizes})")
    splits = [TRAIN if "test" in pairs else OPEN, TEST][: len(files)]
    labels_N = np.concatenate(labels)
    names = _class_names(folder, pairs["train"][1], labels_N)
    present = np.unique(labels_N)
    ((height, width),) = shapes
    return IdxSet(
        classes=[names[label] for label in present],
        files=files,
        height=height,
        width=width,
        labels_N=np.searchsorted(present, labels_N).astype(np.int32),
        splits_N=np.repeat(np.array(splits, np.int8), [file.count for file in files]),
        warnings=[
            f"class {name} has no image and is left out"
            for label, name in enumerate(names)
            if label not in present
        ],
    )


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Images and labels file of each split, train first."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        key = ("train" if match["split"] == "train" else "test", match["kind"])
        if key in found:
            raise BadInput(f"{folder}: {found[key].name} and {path.name} are the same; keep one of them")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{path}: is a link that leaves the folder")
        found[key] = path
    splits = ["train", "test"] if any(split == "test" for split, _ in found) else ["train"]
    for split in splits:
        for kind, digits in (("images", 3), ("labels", 1)):
            if (split, kind) not in found:
                raise BadInput(f"{folder}: {split}-{kind}-idx{digits}-ubyte is missing")
    return {split: (found[split, "images"], found[split, "labels"]) for split in splits}


def _header(path: Path, kind: str) -> tuple[tuple[int, ...], int]:
    """The lengths of the dimensions, and where the data begin."""
    dimensions = 3 if kind == "images" else 1
    offset = 4 * (1 + dimensions)
    try:
        with path.open("rb") as file:
            start = file.read(offset)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    if len(start) < offset or struct.unpack(">I", start[:4])[0] != _MAGIC[kind]:
        raise BadInput(f"{path}: not an IDX file of {kind} (uint8, {dimensions} dimensions)")
    lengths = struct.unpack(f">{dimensions}I", start[4:])
    if min(lengths) == 0:
        raise BadInput(f"{path}: holds no {kind}")
    expected, size = offset + int(np.prod(lengths, dtype=object)), path.stat().st_size
    if size != expected:
        raise BadInput(f"{path}: {size} bytes long, but its header speaks of {expected}; truncated?")
    return lengths, offset


def _class_names(folder: Path, train_labels: Path, labels_N: npt.NDArray[np.int32]) -> list[str]:
    highest = int(labels_N.max())
    path = folder / "classes.txt"
    if not path.exists():
        is_fashion = (
            hashlib.sha256(train_labels.read_bytes()).hexdigest()
            == fashion_mnist.SHA256["train-labels-idx1-ubyte"]
        )
        return fashion_mnist.CLASSES if is_fashion else [str(label) for label in range(highest + 1)]
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8") from None
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise BadInput(f"{path}: {twice[0]} stands there twice")
    if len(names) <= highest:
        raise BadInput(f"{path}: names {len(names)} classes, but the labels go up to {highest}")
    return names

"""Finding the images of a folder: `CLASS/…`, or `train/CLASS/…` with `val/` and `test/` beside it.

Names are bytes throughout, as the file system has them; `show` makes them text. What is found is kept
compactly (a path, four bytes of label, one of split an image), since there may be very many.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.data.images import extension, formats

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
OPEN = -1  # of a split: still to be drawn
NOT_AN_IMAGE = "not an image by its extension"
NOT_A_FILE = "not a regular file"
LOOP = "link that loops"
SPLIT_NAMES = {b"train": TRAIN, b"val": VAL, b"valid": VAL, b"validation": VAL, b"test": TEST}
MOST_CLASSES = 1000
_LISTED = 1000  # so many of what is left out are named, all are counted

RULES = [
    "A class is a folder; images deeper in it belong to it too.",
    "A folder train, with nothing beside it but val (or valid, validation) and test, means that the "
    "splits are given; a split that is not given is drawn from train.",
    "Hidden files and folders are passed over; a class folder without an image is no class.",
    "A symbolic link is followed only to a file inside the folder.",
]


class LeftOut:
    """What was found and is not used: a count by reason, and the first thousand by name."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[dict[str, str]] = []

    def add(self, name: str, reason: str) -> None:
        """`name` is not used, because of `reason`."""
        self.counts[reason] += 1
        if len(self.listed) < _LISTED:
            self.listed.append({"path": name, "reason": reason})

    def __str__(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.counts.most_common())


class Paths:
    """Many byte strings, end to end in one buffer."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def append(self, path: bytes) -> None:
        """Add one at the end."""
        self._bytes += path
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> bytes:
        return bytes(self._bytes[self._ends[i] : self._ends[i + 1]])


@dataclass
class Found:
    """The image files of a folder, in the order of their paths' bytes.

    A path is `root + paths[i]`. Labels index `classes`; a split is TRAIN, VAL, TEST, or OPEN where it
    was not given. `groups` names what an image belongs to, where a table says that.
    """

    root: bytes
    classes: list[str]
    paths: Paths
    labels_N: npt.NDArray[np.int32]
    splits_N: npt.NDArray[np.int8]
    left_out: LeftOut
    warnings: list[str]
    groups: list[str] | None = None


def show(name: bytes) -> str:
    """A file name as text of one line; what is not UTF-8 or not printable is escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda c: repr(c.group())[1:-1], text)


def check_classes(classes: list[str], source: Path, left_out: LeftOut, one: str = "image") -> None:
    """Raises BadInput when there are fewer than two, or too many for a table of what is confused with what."""
    if not classes:
        passed_over = f" (passed over: {left_out})" if left_out.counts else ""
        where = "image in a class folder, and no IDX files" if one == "image" else f"{one} with a label"
        raise BadInput(f"{source}: no {where}{passed_over}")
    if len(classes) == 1:
        raise BadInput(f"{source}: only one class, {classes[0]}, has {one}s; two are needed at least")
    if len(classes) > MOST_CLASSES:
        raise BadInput(
            f"{source}: {len(classes):,} classes, and at most {MOST_CLASSES:,} are taken: is each {one} a class?"
        )


def find_images(folder: Path) -> Found:
    """The images under `folder`, by name alone: nothing is opened.

    Raises:
        BadInput: two folders are the same split, or a folder cannot be read.
    """
    scan = Scan(folder)
    top = scan.listing(b"")
    splits = given_splits([entry.name for entry in top if entry.is_folder], folder)
    for entry in top:
        if splits is None or not entry.is_folder:
            scan.take_class(entry, entry.name, OPEN)
        else:
            for inner in scan.listing(entry.name + b"/"):
                scan.take_class(inner, entry.name + b"/" + inner.name, splits[entry.name])
    return scan.result()


def given_splits(folders: list[bytes], source: Path) -> dict[bytes, int] | None:
    """Which split each folder is; None if they are classes.

    Raises:
        BadInput: two folders are the same split.
    """
    known = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    if len(known) < len(folders) or TRAIN not in known.values():
        return None
    for split, times in Counter(known.values()).items():
        if times > 1:
            both = " and ".join(show(name) for name in sorted(known) if known[name] == split)
            raise BadInput(f"{source}: {both} are the same split; keep one of them")
    return known


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in a folder; `refusal` says why it is not used, if so."""

    name: bytes
    is_folder: bool
    refusal: str = ""


class Scan:
    """One walk over the tree, which collects as it goes."""

    def __init__(self, folder: Path) -> None:
        self.root = os.fsencode(folder) + b"/"
        self.real_root = Path(os.path.realpath(folder))
        self.paths = Paths()
        self.labels = array("i")
        self.splits = array("b")
        self.left_out = LeftOut()
        self._but: frozenset[bytes] = frozenset()
        self.met: dict[bytes, int] = {}  # class folders -> label, as they are met

    def take_class(self, entry: _Entry, path: bytes, split: int) -> None:
        """Take the images under `entry`, if it is a folder, as those of the class of its name."""
        if not entry.is_folder:
            misplaced = entry.refusal in ("", NOT_AN_IMAGE)
            self.left_out.add(show(path), "not in a class folder" if misplaced else entry.refusal)
            return
        self._take_images(path + b"/", self.met.setdefault(entry.name, len(self.met)), split)

    def take_all(self, but: frozenset[bytes]) -> None:
        """Take all images, at whatever depth, without a class; of the paths in `but` nothing is said."""
        self._but = but
        for entry in self.listing(b""):
            if entry.is_folder:
                self._take_images(entry.name + b"/", -1, OPEN)
            elif entry.refusal:
                self._leave(entry.name, entry.refusal)
            else:
                self._take(entry.name, -1, OPEN)

    def _leave(self, path: bytes, reason: str) -> None:
        if path not in self._but:
            self.left_out.add(show(path), reason)

    def _take(self, path: bytes, label: int, split: int) -> None:
        self.paths.append(path)
        self.labels.append(label)
        self.splits.append(split)

    def _take_images(self, top: bytes, label: int, split: int) -> None:
        waiting = [(top, iter(self.listing(top)))]  # a stack, not recursion: folders may be deep
        while waiting:
            folder, entries = waiting[-1]
            entry = next(entries, None)
            if entry is None:
                waiting.pop()
            elif entry.refusal:
                self._leave(folder + entry.name, entry.refusal)
            elif entry.is_folder:
                inner = folder + entry.name + b"/"
                waiting.append((inner, iter(self.listing(inner))))
            else:
                self._take(folder + entry.name, label, split)

    def listing(self, folder: bytes) -> list[_Entry]:
        """What is in `folder` (which ends in a slash, or is empty), in the order of path bytes."""
        try:
            with os.scandir(self.root + folder) as entries:
                found = [self._entry(entry) for entry in entries]
        except (FileNotFoundError, NotADirectoryError) as error:
            if not folder:
                raise BadInput(f"{show(self.root)}: cannot be read ({error.strerror})") from None
            self.left_out.add(show(folder), "folder that vanished while it was read")
            return []
        except OSError as error:
            raise BadInput(f"{show(self.root + folder)}: cannot be read ({error.strerror})") from None
        return sorted(found, key=lambda entry: entry.name + b"/" if entry.is_folder else entry.name)

    def _entry(self, entry: os.DirEntry[bytes]) -> _Entry:
        name = entry.name
        if name.startswith(b"."):
            return _Entry(name, False, "hidden")
        if entry.is_dir(follow_symlinks=False):
            return _Entry(name, True)
        if entry.is_symlink():
            if refusal := self._refuses_link(Path(os.fsdecode(entry.path))):
                return _Entry(name, False, refusal)
        elif not entry.is_file():
            return _Entry(name, False, NOT_A_FILE)
        return _Entry(name, False, "" if extension(name) in formats() else NOT_AN_IMAGE)

    def _refuses_link(self, link: Path) -> str:
        """Why a symbolic link is not followed; nothing where it leads to a file inside the folder."""
        end = Path(os.path.realpath(link))  # unlike resolve(), not at a loss where links go round in a circle
        if not end.is_relative_to(self.real_root):
            return "link that leaves the folder"
        try:
            mode = link.stat().st_mode
        except OSError as error:
            return LOOP if error.errno == errno.ELOOP else "link to nothing"
        if stat.S_ISDIR(mode):
            return LOOP if Path(os.path.realpath(link.parent)).is_relative_to(end) else "link to a folder"
        return "" if stat.S_ISREG(mode) else NOT_A_FILE

    def result(self) -> Found:
        """What was found, with classes in the order of their names and empty ones gone."""
        labels_N = np.frombuffer(self.labels, np.int32)
        images = np.bincount(labels_N, minlength=len(self.met))
        ordered = sorted(name for name, label in self.met.items() if images[label])
        if alike := [name for name, times in Counter(map(show, ordered)).items() if times > 1]:
            raise BadInput(f"{show(self.root)}: two class folders are both shown as {alike[0]}; rename one")
        new_label = {name: label for label, name in enumerate(ordered)}
        relabel = np.array([new_label.get(name, -1) for name in self.met], np.int32)
        return Found(
            root=self.root,
            classes=[show(name) for name in ordered],
            paths=self.paths,
            labels_N=relabel[labels_N],
            splits_N=np.frombuffer(self.splits, np.int8),
            left_out=self.left_out,
            warnings=[
                f"class folder {show(name)} holds no image and is left out"
                for name in sorted(set(self.met) - set(ordered))
            ],
        )

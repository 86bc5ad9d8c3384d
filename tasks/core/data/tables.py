"""Images whose labels stand in a table: `file_name,label` beside a folder of images, CSV or JSON.

A path in the table is looked for from the table's folder on, then by its file name alone, then without its extension:
tables name `images/7.png`, `7.png` or `7`.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.common.errors import BadInput
from tasks.core.data.sources import OPEN, SPLIT_NAMES, Found, Paths, Scan, given_splits, show

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")  # by their extensions
METADATA = ("metadata.csv", "metadata.jsonl")  # what Hugging Face's image folders have
FILES = (
    "file_name",
    "filename",
    "file",
    "path",
    "image",
    "image_path",
    "image_name",
    "image_id",
    "id",
    "name",
)
LABELS = ("label", "labels", "class", "class_name", "category", "target")
SPLITS = ("split", "subset", "set")
RULES = [
    "Labels are those of the table; a file that it does not list, and one that it lists with two labels, is left out.",
    "A row's file is sought by its path from the table's folder on, then by its name, then by its name without an "
    "extension, and left out where several files could be meant.",
]


def tables_of(folder: Path, labels: str | None) -> list[Path]:
    """The tables with the labels of the images in `folder`: `labels`, or the metadata of Hugging Face's image folders,
    at the top or in every split; none where folders are classes.

    Raises:
        BadInput: `labels` is no file in `folder`.
    """
    if labels is not None:
        table = folder / labels
        if not table.is_file() or not table.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"ingest.labels: {labels}: no such file in {folder}")
        return [table]
    for name in METADATA:
        if (folder / name).is_file():
            return [folder / name]
        if found := [
            path
            for split in sorted(SPLIT_NAMES)
            for path in [folder / os.fsdecode(split) / name]
            if path.is_file()
        ]:
            return found
    return []


def lists_images(table: Path) -> bool:
    """Whether a column names images that lie beside or below the table, mostly; else it holds texts."""
    scan = Scan(table.parent)
    scan.take_all(frozenset())
    if not len(scan.paths):
        return False
    try:
        frame = _read(table)
    except BadInput:
        return True  # whoever reads it as such says what is wrong
    index = _Index([scan.paths[i] for i in range(len(scan.paths))])
    columns = ([str(cell) for cell in frame[name].head(100)] for name in frame.columns)
    return any(2 * sum(map(index.knows, cells)) > len(cells) for cells in columns)


def find_listed(folder: Path, tables: list[Path], group_column: str | None = None) -> Found:
    """The images of `folder` that `tables` list, with their labels, splits and groups.

    Raises:
        BadInput: a table cannot be read, or what a column holds is not clear.
    """
    scan = Scan(folder)
    splits = given_splits([entry.name for entry in scan.listing(b"") if entry.is_folder], folder) or {}
    scan.take_all(frozenset(os.fsencode(table.relative_to(folder)) for table in tables))
    index = _Index([scan.paths[i] for i in range(len(scan.paths))])
    names: list[str | None] = [None] * len(scan.paths)
    chosen = array("b", [OPEN]) * len(scan.paths)
    groups: list[str] = [""] * len(scan.paths)
    spoilt: set[int] = set()
    for table in tables:
        start = PurePosixPath(table.parent.relative_to(folder).as_posix())
        for row in _rows(table, index, group_column):
            at = index.find(start, row.file)
            if isinstance(at, str):
                scan.left_out.add(f"{table.name}, row {row.number}: {row.file}", at)
            elif not row.label:
                spoilt.add(at)
                scan.left_out.add(show(scan.paths[at]), f"no label in {table.name}")
            elif names[at] not in (None, row.label):
                spoilt.add(at)
                scan.left_out.add(show(scan.paths[at]), f"two labels in {table.name}")
            else:
                names[at], groups[at] = row.label, row.group
                top = scan.paths[at].partition(b"/")[0]
                chosen[at] = splits.get(top, OPEN) if row.split is None else row.split
    title = " and ".join(table.relative_to(folder).as_posix() for table in tables)
    return _labelled(scan, names, chosen, groups if group_column else None, spoilt, f"not listed in {title}")


def _labelled(
    scan: Scan,
    names: list[str | None],
    splits: array[int],
    groups: list[str] | None,
    spoilt: set[int],
    reason: str,
) -> Found:
    """What `scan` has taken, each image with the class that `names` gives it.

    Args:
        spoilt: images that are left out, and have been named.
        reason: why an image without a class is left out.
    """
    kept = [i for i, name in enumerate(names) if name is not None and i not in spoilt]
    for i in sorted({i for i, name in enumerate(names) if name is None} - spoilt):
        scan.left_out.add(show(scan.paths[i]), reason)
    paths = Paths()
    for i in kept:
        paths.append(scan.paths[i])
    shown = [show(str(names[i]).encode("utf-8", "surrogateescape")) for i in kept]
    classes, labels_N = np.unique(np.array(shown, np.str_), return_inverse=True)
    return Found(
        root=scan.root,
        classes=classes.tolist(),
        paths=paths,
        labels_N=labels_N.astype(np.int32),
        splits_N=np.frombuffer(splits, np.int8)[kept],
        left_out=scan.left_out,
        warnings=[],
        groups=None if groups is None else [groups[i] for i in kept],
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a table; `number` counts from 1 behind the header, `split` is None where there is no such column."""

    number: int
    file: str
    label: str
    split: int | None
    group: str


class _Index:
    """Finds a file by what a table calls it."""

    def __init__(self, paths: list[bytes]) -> None:
        self._whole = {path: i for i, path in enumerate(paths)}
        self._parts: dict[
            bytes, int
        ] = {}  # file names, with and without an extension; -1 where several are meant
        for i, path in enumerate(paths):
            name = path.rpartition(b"/")[2]
            for part in {name, name.rpartition(b".")[0] or name}:
                self._parts[part] = -1 if part in self._parts else i

    def find(self, start: PurePosixPath, file: str) -> int | str:
        """The number of the path that `file` means; why there is none."""
        whole = os.fsencode(os.path.normpath(start / file.replace("\\", "/")))
        at = self._whole.get(whole)
        if at is None:
            at = self._parts.get(whole.rpartition(b"/")[2])
        if at is None:
            return "listed, but no image of that name is there"
        return at if at >= 0 else "listed, but several images have that name"

    def knows(self, file: str) -> bool:
        """Whether some image may be meant."""
        return not isinstance(self.find(PurePosixPath(), file), str)


def _rows(table: Path, index: _Index, group_column: str | None) -> Iterator[_Row]:
    import pandas as pd

    frame = _read(table)
    columns = {str(name).strip().lower(): name for name in frame.columns}
    if (
        len(columns) == 2
        and not set(columns) & {*FILES, *LABELS}
        and any(map(index.knows, map(str, frame.columns)))
    ):
        first = pd.DataFrame([list(map(str, frame.columns))], columns=frame.columns)  # there is no header
        frame = pd.concat([first, frame], ignore_index=True)
    file = _known(columns, FILES)
    if file is None:
        shares = {key: frame[name].head(100).map(index.knows).mean() for key, name in columns.items()}
        file = max(shares, key=lambda key: shares[key])
        if not shares[file]:
            raise _unclear(table, columns, "names image files that are there", FILES)
    label = _known({k: v for k, v in columns.items() if k != file}, LABELS)
    if label is None:
        others = [key for key in columns if key not in (file, *SPLITS)]
        if len(others) != 1:
            raise _unclear(table, columns, "holds the labels", LABELS)
        label = others[0]
    split = next((key for key in SPLITS if key in columns and key not in (file, label)), None)
    if group_column is not None and group_column.lower() not in columns:
        raise BadInput(
            f"ingest.groups: {table.name} has no column {group_column} (it has {', '.join(columns)})"
        )
    used = [file, label, *([split] if split else []), *([group_column.lower()] if group_column else [])]
    for number, values in enumerate(zip(*(frame[columns[key]] for key in used), strict=True), 1):
        cells = iter(value.strip() for value in values)
        name, class_name = next(cells), next(cells)
        place = _split(table, number, next(cells)) if split else None
        yield _Row(number, name, class_name, place, next(cells, ""))


def _read(table: Path) -> pd.DataFrame:
    """The table's cells as text, the empty ones empty."""
    import pandas as pd

    try:
        if table.suffix.lower() == ".json":
            frame = _frame(_listed(json.loads(table.read_text(encoding="utf-8-sig"))))
        elif table.suffix.lower() in (".jsonl", ".ndjson"):
            lines = table.read_text(encoding="utf-8-sig").splitlines()
            frame = _frame([json.loads(line) for line in lines if line.strip()])
        else:  # the separator is found out
            frame = pd.read_csv(
                table, sep=None, engine="python", dtype=str, keep_default_na=False, encoding="utf-8-sig"
            )
    except UnicodeDecodeError as error:
        raise BadInput(f"{table}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise BadInput(f"{table}: cannot be read as a table ({str(error).partition(chr(10))[0]})") from None
    except OSError as error:
        raise BadInput(f"{table}: cannot be read ({error.strerror})") from None
    if frame.empty or len(frame.columns) < 2:
        raise BadInput(f"{table}: holds no rows of file names and labels")
    return frame


def _frame(rows: Any) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is no list of objects with a file name and a label each")
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    return pd.DataFrame(texts, dtype=str).fillna("")


def _listed(content: Any) -> Any:
    """{file: label, …} as rows."""
    if isinstance(content, dict) and not any(isinstance(value, dict | list) for value in content.values()):
        return [{FILES[0]: name, LABELS[0]: label} for name, label in content.items()]
    return content


def _known(columns: dict[str, Any], known: tuple[str, ...]) -> str | None:
    return next((key for key in known if key in columns), None)


def _unclear(table: Path, columns: dict[str, Any], what: str, known: tuple[str, ...]) -> BadInput:
    return BadInput(f"{table}: no column of {', '.join(columns)} {what}: call it {known[0]}")


def _split(table: Path, number: int, word: str) -> int:
    try:
        return SPLIT_NAMES[word.lower().encode()]
    except KeyError:
        raise BadInput(f"{table}: row {number}: the split is {word!r}, not train, val or test") from None

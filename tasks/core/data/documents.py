"""Labelled texts in a table: CSV, TSV, JSON lines, JSON or Parquet, read piece by piece.

Which column holds the texts and which the labels is found by their names, then by what they hold, or is stated.
"""

from __future__ import annotations

import codecs
import csv
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.common.errors import BadInput
from tasks.core.data.sources import OPEN, SPLIT_NAMES
from tasks.core.data.tables import LABELS, SPLITS

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "column:"  # ingest.groups names a column so
EXTENSIONS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
TEXTS = (
    "text", "texts", "sentence", "review", "content", "comment", "message", "body", "document", "tweet", "question",
    "description", "utterance", "title",
)  # fmt: skip
CLASSES = (*LABELS, "sentiment", "topic", "intent", "language")
DELIMITERS = ",;\t|"
PIECE = 20_000  # rows in memory at once
PROSE = (".md", ".rst", ".txt", ".html", ".pdf")  # what may lie beside tables
SNIFFED = 1 << 16  # bytes by which a delimiter is found
MOST_LABELS = 1000
WORDS = 4  # so many in a name of a column: it is a text, and there are no names

RULES = [
    f"The texts are in the column called {', '.join(TEXTS[:4])} …, else in that with the longest ones; the labels in the one "
    f"called {', '.join(CLASSES[:4])} …, else in that with the fewest different values.",
    "The first row of a CSV file names the columns, unless it holds a text.",
    "Files are UTF-8, or UTF-16 where they begin with its mark, unless ingest.encoding says otherwise.",
]


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `split` and `group` where there are any."""

    text: str
    label: str
    split: str | None = None
    group: str | None = None

    @property
    def named(self) -> list[str]:
        """All that are read."""
        return [name for name in (self.text, self.label, self.split, self.group) if name is not None]


@dataclass(frozen=True)
class Asked:
    """What a person has stated of a table; None or auto: it is found."""

    text: str | None = None
    label: str | None = None
    group: str | None = None
    encoding: str = "auto"


def tables(source: Path) -> dict[Path, int]:
    """The tables of texts at `source`, each with the split that its name gives it: one file, or a folder that holds
    nothing but them, one a split. None where `source` is something else."""
    if source.is_file():
        return {source: OPEN} if source.suffix.lower() in EXTENSIONS else {}
    if not source.is_dir():
        return {}
    there = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    found = {p: SPLIT_NAMES.get(p.stem.lower().encode()) for p in there if p.suffix.lower() in EXTENSIONS}
    if len(found) < len([path for path in there if path.suffix.lower() not in PROSE]):
        return {}
    if len(found) == 1:
        return dict.fromkeys(found, OPEN)
    if unclear := [path.name for path, split in found.items() if split is None]:
        raise BadInput(
            f"{source}: {len(found)} tables, and {unclear[0]} is neither train, val nor test: name one of them"
        )
    return {path: split for path, split in found.items() if split is not None}


def pieces(table: Path, asked: Asked) -> Iterator[tuple[Columns, pd.DataFrame]]:
    """The rows of `table`, PIECE by PIECE: cells as text, the empty ones None; the index counts rows from 1.

    Raises:
        BadInput: the table cannot be read, holds no rows, or what a column holds is not clear.
    """
    import pandas as pd

    columns = None
    first = 1
    try:
        for frame in _read(table, asked.encoding):
            if frame.empty:
                continue
            frame.columns = [str(name).strip() for name in frame.columns]
            if columns is None:
                columns = _columns(table, frame, asked)
            frame.index = pd.RangeIndex(first, first + len(frame))
            first += len(frame)
            yield columns, frame[columns.named]
    except UnicodeDecodeError as error:
        raise _undecodable(table, error.encoding) from None
    except (ValueError, TypeError, KeyError, csv.Error, OverflowError) as error:
        raise BadInput(f"{table}: cannot be read as a table: {_one_line(error)}") from None
    except OSError as error:
        raise BadInput(f"{table}: cannot be read ({error.strerror or _one_line(error)})") from None
    if columns is None:
        raise BadInput(f"{table}: holds no rows of texts and labels")


# ---- formats


def _read(table: Path, encoding: str) -> Iterator[pd.DataFrame]:
    import pandas as pd

    match table.suffix.lower():
        case ".parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(table) as file:
                for batch in file.iter_batches(PIECE):
                    yield batch.to_pandas()
        case ".jsonl" | ".ndjson":
            with table.open(encoding=_encoding(table, encoding)) as lines:
                rows: list[Any] = []
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        rows.append(_row(line, f"line {number}"))
                    if len(rows) == PIECE:
                        yield pd.DataFrame(rows)
                        rows = []
                if rows:
                    yield pd.DataFrame(rows)
        case ".json":
            content = json.loads(table.read_text(_encoding(table, encoding)))
            if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
                raise ValueError("it is no list of objects with a text and a label each")
            for start in range(0, len(content), PIECE):
                yield pd.DataFrame(content[start : start + PIECE])
        case _:
            yield from _read_csv(table, _encoding(table, encoding))


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: {_one_line(error)}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: it is no object with a text and a label")
    return row


def _read_csv(table: Path, encoding: str) -> Iterator[pd.DataFrame]:
    import pandas as pd

    with table.open(encoding=encoding, newline="") as file:
        start = file.read(SNIFFED)
    delimiter = "\t" if table.suffix.lower() == ".tsv" else _delimiter(table, start)
    names = next(csv.reader([start.partition("\n")[0]], delimiter=delimiter), [])
    unnamed = not {name.strip().lower() for name in names} & {*TEXTS, *CLASSES} and any(
        len(name.split()) >= WORDS for name in names
    )
    options: dict[str, Any] = {"header": None} if unnamed else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells that are left over
            with pd.read_csv(
                table, sep=delimiter, dtype=str, keep_default_na=False, na_values=[""], encoding=encoding,
                chunksize=PIECE, index_col=False, **options,
            ) as reader:  # fmt: skip
                yield from reader
    except pd.errors.ParserWarning:
        raise ValueError(
            "a row has more cells than there are columns: put quotes around texts that hold the delimiter"
        ) from None
    except pd.errors.EmptyDataError:
        return


def _delimiter(table: Path, start: str) -> str:
    """What parts the cells of the first lines in the same way."""
    lines = start.splitlines()[: -1 if len(start) >= SNIFFED else None]
    counts = {}
    for delimiter in DELIMITERS:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        if widths and min(widths) > 1:
            counts[delimiter] = (len(set(widths)) == 1, -len(set(widths)), -max(widths))
    if counts:
        return max(counts, key=lambda delimiter: counts[delimiter])
    first = lines[0][:60] if lines else ""
    if there := [delimiter for delimiter in DELIMITERS if delimiter in first]:
        return there[0]  # what is wrong then is for the reader to say
    if not lines:
        raise BadInput(f"{table}: holds no rows of texts and labels")
    raise BadInput(
        f"{table}: no comma, semicolon, tab or bar parts a text from a label in every line (the first is {first!r})"
    )


def _encoding(table: Path, asked: str) -> str:
    if asked != "auto":
        try:
            return codecs.lookup(asked).name
        except LookupError:
            raise BadInput(f"ingest.encoding: {asked!r} is no encoding that Python knows") from None
    with table.open("rb") as file:
        mark = file.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _undecodable(table: Path, encoding: str) -> BadInput:
    """Which byte of which row is the first that is not of the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, place = 1, 0
    with table.open("rb") as file:
        for raw in file:
            try:
                decoder.decode(raw)
            except UnicodeDecodeError as error:
                byte = place + error.start
                return BadInput(
                    f"{table}: line {line}: byte {byte} (0x{error.object[error.start]:02x}) is not {encoding}: save it as "
                    "UTF-8, or set ingest.encoding, to cp1252 for example"
                )
            line, place = line + 1, place + len(raw)
    return BadInput(f"{table}: ends in the middle of a character of {encoding}")


# ---- columns


def _columns(table: Path, frame: pd.DataFrame, asked: Asked) -> Columns:
    there = {str(name).lower(): str(name) for name in frame.columns}
    if len(there) < 2:
        raise BadInput(
            f"{table}: has one column only, {next(iter(frame.columns), '')!r}: a text and a label are needed; what parts the "
            f"cells must be one of , ; tab |"
        )
    stated = {"text": asked.text, "label": asked.label, "groups": asked.group}
    for key, name in stated.items():
        if name is not None and name.lower() not in there:
            raise BadInput(
                f"ingest.{key}: {table.name} has no column {name} (it has {', '.join(there.values())})"
            )
    chosen = {key: there[name.lower()] for key, name in stated.items() if name is not None}
    others = [name for key, name in there.items() if name not in chosen.values()]
    cells = {name: frame[name].dropna().astype(str) for name in others}
    text = chosen.get("text") or _known(others, TEXTS)
    if text is None:
        lengths = {name: values.str.len().mean() for name, values in cells.items() if len(values)}
        if not lengths:
            raise BadInput(
                f"{table}: no column of {', '.join(there.values())} holds texts: state ingest.text"
            )
        text = max(lengths, key=lambda name: lengths[name])
    others = [name for name in others if name != text]
    label = chosen.get("label") or _known(others, CLASSES)
    if label is None:
        kinds = {name: cells[name].nunique() for name in others if name.lower() not in SPLITS}
        fitting = {n: k for n, k in kinds.items() if 1 < k <= min(MOST_LABELS, max(2, len(frame) / 2))}
        if not fitting:
            raise BadInput(
                f"{table}: no column of {', '.join(there.values())} holds labels beside the texts in {text}: state ingest.label"
            )
        label = min(fitting, key=lambda name: fitting[name])
    split = next((there[key] for key in SPLITS if key in there and there[key] not in (text, label)), None)
    if split is not None and not set(cells[split].str.lower().head(1000)) <= {
        k.decode() for k in SPLIT_NAMES
    }:
        split = None  # called so, but something else
    return Columns(text, label, split, chosen.get("groups"))


def _known(names: list[str], known: tuple[str, ...]) -> str | None:
    by_key = {name.lower(): name for name in names}
    return next((by_key[key] for key in known if key in by_key), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

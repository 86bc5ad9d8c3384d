"""Tables of labelled texts: what is read of them, and how they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.data.documents import Asked, pieces, tables
from tasks.core.data.sources import OPEN, TEST, TRAIN

ROWS = [("a fine day at the sea", "good"), ("rain, and no end; of it", "bad"), ("sun | and sand", "good")]


def read(table: Path, asked: Asked = Asked()) -> list[tuple[str, str]]:  # noqa: B008
    return [
        (text, label)
        for columns, frame in pieces(table, asked)
        for text, label in zip(frame[columns.text], frame[columns.label], strict=True)
    ]


def written(path: Path, **options: object) -> Path:
    pd.DataFrame(ROWS, columns=["review", "verdict"]).to_csv(path, index=False, **options)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_are_read_when_cells_are_parted_by_any_of_the_usual_delimiters(
    delimiter: str, tmp_path: Path
) -> None:
    assert read(written(tmp_path / "some.csv", sep=delimiter)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_are_read_when_the_encoding_is_told_by_its_mark(encoding: str, tmp_path: Path) -> None:
    assert read(written(tmp_path / "some.csv", encoding=encoding)) == ROWS


def test_rows_are_read_when_they_are_json_lines_json_or_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=["review", "verdict"])
    frame.to_parquet(tmp_path / "some.parquet")
    frame.to_json(tmp_path / "some.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "some.json", orient="records")
    for name in ("some.parquet", "some.jsonl", "some.json"):
        assert read(tmp_path / name) == ROWS


def test_columns_are_found_by_what_they_hold_when_their_names_say_nothing(tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    rows = [(i, text, label) for i, (text, label) in enumerate(ROWS * 3)]
    pd.DataFrame(rows, columns=["n", "x", "y"]).to_csv(table, index=False)
    assert read(table) == ROWS * 3


def test_first_row_is_read_when_it_names_no_columns(tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    pd.DataFrame(ROWS * 2).to_csv(table, index=False, header=False)
    assert read(table) == ROWS * 2


def test_columns_are_those_that_are_stated_when_they_are(tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    pd.DataFrame([(*row, "x", "y") for row in ROWS], columns=["text", "label", "a", "b"]).to_csv(
        table, index=False
    )
    assert read(table, Asked(text="B", label="a")) == [("y", "x")] * 3


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        (b"", Asked(), "holds no rows"),
        (b"text,label\n", Asked(), "holds no rows"),
        (b"just one column\nof words\n", Asked(), "no comma, semicolon, tab or bar"),
        (b"text,label\nsome words,a\nnot closed \"here,b\n\"never closed,c\n", Asked(), "cannot be read as a table"),
        (b"text,label\ngood,a\nb\xe4d,b\n", Asked(), r"line 3: byte 19 \(0xe4\) is not utf-8"),
        (b"text,label\nsome,a\n", Asked(text="review"), "ingest.text: some.csv has no column review"),
        (b"text,label\nsome,a\n", Asked(encoding="klingon"), "'klingon' is no encoding"),
        (b"text,label\nsome,a,b,c\n", Asked(), "cannot be read as a table"),
    ],
)  # fmt: skip
def test_table_is_refused_in_one_line_when_it_is_broken(
    content: bytes, asked: Asked, said: str, tmp_path: Path
) -> None:
    table = tmp_path / "some.csv"
    table.write_bytes(content)
    with pytest.raises(BadInput, match=said) as refused:
        read(table, asked)
    assert "\n" not in str(refused.value)
    assert str(table) in str(refused.value) or "ingest." in str(refused.value)


def test_line_of_json_is_named_when_it_is_broken(tmp_path: Path) -> None:
    table = tmp_path / "some.jsonl"
    table.write_text(json.dumps({"text": "a", "label": "b"}) + "\n{broken\n")
    with pytest.raises(BadInput, match="line 2: "):
        read(table)


def test_bytes_are_read_when_their_encoding_is_stated(tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    table.write_bytes("text,label\ngrün und süß,a\nblau,b\n".encode("cp1252"))
    assert read(table, Asked(encoding="cp1252"))[0][0] == "grün und süß"


def test_tables_are_the_splits_when_they_are_called_so(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        written(tmp_path / name)
    (tmp_path / "README.md").write_text("what this is")
    assert tables(tmp_path) == {tmp_path / "test.csv": TEST, tmp_path / "train.csv": TRAIN}
    assert tables(tmp_path / "train.csv") == {tmp_path / "train.csv": OPEN}
    written(tmp_path / "more.csv")
    with pytest.raises(BadInput, match=r"more\.csv is neither train, val nor test"):
        tables(tmp_path)


def test_folder_holds_no_texts_when_something_else_lies_in_it(tmp_path: Path) -> None:
    written(tmp_path / "labels.csv")
    (tmp_path / "cat.png").touch()
    assert tables(tmp_path) == {}

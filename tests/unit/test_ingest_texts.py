"""The stage ingest on tables of texts: what is kept, what is left out and counted, and what is said of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.config.params import IngestParams
from tasks.core.data.bpe import BytePairs
from tasks.core.data.dataset import open_dataset
from tasks.core.data.inputs import TextInput
from tasks.core.data.texts import Texts
from tasks.core.data.tokens import hashes_of
from tasks.ingest import ingest

WEATHER = ["rain", "wind", "storm", "cloud", "sun"]
FOOD = ["bread", "soup", "salt", "oven", "cheese"]


def sentences(count: int) -> list[tuple[str, str]]:
    draws = np.random.default_rng(0)
    rows = []
    for number in range(count):
        label, words = [("weather", WEATHER), ("food", FOOD)][number % 2]
        rows.append((f"{number} " + " ".join(draws.choice(words, 8).tolist()), label))
    return rows


def ingested(
    tmp_path: Path, rows: list[tuple[str, ...]], header: str = "text,label", **params: Any
) -> dict[str, Any]:
    """report.json of a table with these rows."""
    table, out = tmp_path / "some.csv", tmp_path / "out"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    out.mkdir()
    ingest(IngestParams(source=str(table), **params), table, out)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def kept(tmp_path: Path) -> list[str]:
    dataset = open_dataset(tmp_path / "out")
    return [
        text
        for split in (dataset.train, dataset.val, dataset.test)
        for text in np.asarray(split.raw_N).tolist()
    ]


def test_texts_and_tokens_are_those_of_the_table_when_packed(tmp_path: Path) -> None:
    rows = sentences(100)
    report = ingested(tmp_path, rows)
    assert sorted(kept(tmp_path)) == sorted(text for text, _ in rows)
    assert report["columns"] == {"text": "text", "label": "label"}
    assert (report["found"], report["kept"]) == (100, 100)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == ["food", "weather"]
    assert isinstance(dataset.train.raw_N, Texts) and isinstance(dataset.train.raw_N.flat, np.memmap)
    first = str(np.asarray(dataset.train.raw_N[:1])[0])
    assert np.asarray(dataset.train.x_N[:1]).tolist() == [[hashes_of([word])[word] for word in first.split()]]
    labels = dict(rows)
    for split in (dataset.train, dataset.val, dataset.test):
        names = [dataset.classes[label] for label in split.labels_N]
        assert names == [labels[text] for text in np.asarray(split.raw_N)]


def test_texts_are_left_out_and_counted_when_they_say_nothing_or_too_much(tmp_path: Path) -> None:
    rows = sentences(60)
    odd = [
        ("", "food"), ("  \t ", "food"), ("a text", ""), (rows[0][0].upper() + "  ", rows[0][1]),
        (rows[1][0], "weather"),
    ]  # fmt: skip
    report = ingested(tmp_path, [*rows, *odd])
    assert report["left_out_counts"] == {
        "no text": 2, "no label": 1, "duplicate in the same split": 1, "same words under two labels": 2,
    }  # fmt: skip
    assert {"path": "some.csv, row 61", "reason": "no text"} in report["left_out"]
    assert report["conflicting_labels"] == 2
    assert rows[1][0] not in kept(tmp_path)


def test_labels_are_one_when_they_differ_by_case_and_blanks_alone(tmp_path: Path) -> None:
    rows = [
        (text, f" {label.upper()} " if i % 10 == 0 else label)
        for i, (text, label) in enumerate(sentences(100))
    ]
    report = ingested(tmp_path, rows)
    assert open_dataset(tmp_path / "out").classes == ["food", "weather"]
    assert any("are one class" in warning for warning in report["warnings"])


def test_groups_stand_in_one_split_when_a_column_names_them(tmp_path: Path) -> None:
    rows = [(text, label, f"author {i // 10}") for i, (text, label) in enumerate(sentences(300))]
    ingested(tmp_path, rows, "text,label,author", groups="column:author")
    with (tmp_path / "out/manifest.csv").open() as file:
        splits = {row["path"]: row["split"] for row in csv.DictReader(file)}
    of_author: dict[int, set[str]] = {}
    for path, split in splits.items():
        of_author.setdefault((int(path.rsplit(" ", 1)[1]) - 1) // 10, set()).add(split)
    assert all(len(found) == 1 for found in of_author.values())
    assert len(set(splits.values())) == 3


def test_splits_are_those_of_the_column_when_there_is_one(tmp_path: Path) -> None:
    rows = [(text, label, "test" if i >= 80 else "train") for i, (text, label) in enumerate(sentences(100))]
    report = ingested(tmp_path, rows, "text,label,split")
    assert sum(report["counts"]["test"].values()) == 20
    assert sum(report["counts"]["val"].values()) > 0


def test_near_duplicates_are_counted_when_texts_held_out_share_most_words(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = []
    for i in range(200):
        words = [f"w{n}" for n in draws.integers(0, 5000, 30)]
        label = ["food", "weather"][i % 2]
        rows.append((" ".join(words), label, "train"))
        if i < 40:
            rows.append((" ".join([*words[:-1], "else"]), label, "test"))
    report = ingested(tmp_path, rows, "text,label,split")
    assert report["near_duplicates"]["test"] >= 30
    assert report["near_duplicates"]["false_alarm_rate"] == 0
    assert any("look like one for training" in warning for warning in report["warnings"])


def test_tokens_are_byte_pairs_of_the_training_texts_when_asked_for(tmp_path: Path) -> None:
    rows = sentences(100)
    ingested(tmp_path, rows, tokens="bpe", bpe_vocabulary=300, max_tokens=12)
    given = (dataset := open_dataset(tmp_path / "out")).input
    assert isinstance(given, TextInput) and given.tokenizer is not None
    pairs = BytePairs(given.tokenizer, given.longest)
    assert set(FOOD + WEATHER) <= set(pairs.names().values())
    for split in (dataset.train, dataset.test):
        assert np.asarray(split.tokens_N).tolist() == pairs.padded(np.asarray(split.raw_N).tolist()).tolist()
    (again := tmp_path / "again").mkdir()
    ingested(again, rows, tokens="bpe", bpe_vocabulary=300, max_tokens=12)
    assert open_dataset(again / "out").digest == dataset.digest


def test_model_sees_no_token_behind_the_longest_when_a_text_is_long(tmp_path: Path) -> None:
    rows = [*sentences(60), ("word " * 20_000, "food")]
    report = ingested(tmp_path, rows, max_tokens=16)
    dataset = open_dataset(tmp_path / "out")
    assert max(split.x_N.shape[1] for split in (dataset.train, dataset.val, dataset.test)) == 16
    assert any("longer than 50,000 characters" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("some words", "one")] * 3, "only one class, one, has texts"),
        ([(f"text {i}", f"class {i}") for i in range(1500)], "is each text a class"),
        ([("", "a"), ("", "b")], "no text with a label"),
        ([*sentences(40), ("an only one", "rare")], r"fewer than ingest\.min_per_class \(10\) texts in rare"),
    ],
)  # fmt: skip
def test_table_is_refused_in_one_line_when_nothing_can_be_learned(
    rows: list[tuple[str, ...]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        ingested(tmp_path, rows)
    assert "\n" not in str(refused.value)


def test_cells_stay_text_when_they_begin_as_formulas_do(tmp_path: Path) -> None:
    rows = [*sentences(60), ('=HYPERLINK("x")', "food"), ("+1 -1 @home", "weather")]
    ingested(tmp_path, rows)
    assert {'=HYPERLINK("x")', "+1 -1 @home"} <= set(kept(tmp_path))

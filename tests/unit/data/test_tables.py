"""Labels that stand in a table beside the images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.core.common.errors import BadInput
from tasks.core.config.params import IngestParams
from tasks.core.data.find import find
from tasks.core.data.sources import OPEN, TEST, TRAIN, VAL, Found
from tests.unit.data.test_sources import listed, tree


def found(folder: Path, labels: str | None = None, groups: int | str | None = None) -> Found:
    return find(IngestParams(source="src", labels=labels, groups=groups), folder)[0]


def refused(folder: Path, labels: str | None = None, groups: int | str | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        found(folder, labels, groups)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tree(tmp_path, "images/1.png", "images/2.jpg", "images/deep/3.png", "notes.txt")


WANTED = [("images/1.png", "cat", OPEN), ("images/2.jpg", "dog", OPEN), ("images/deep/3.png", "cat", OPEN)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "file_name,label\nimages/1.png,cat\nimages/2.jpg,dog\nimages/deep/3.png,cat\n"),
        ("t.csv", "\ufeffLabel;File\r\ncat;images/1.png\r\ndog;images/2.jpg\r\ncat;images/deep/3.png\r\n"),
        ("t.csv", "id,breed\n1,cat\n2,dog\n3,cat\n"),
        ("t.csv", "1.png,cat\n2.jpg,dog\n3.png,cat\n"),
        ("t.tsv", 'path\tsize\tclass\n./images/1.png\t3\tcat\nimages\\2.jpg\t4\t"dog"\n3.png\t5\tcat\n'),
        ("t.json", '[{"image": "1", "category": "cat"}, {"image": "2", "category": "dog"}, {"image": "3", "category": "cat"}]'),
        ("t.json", '{"images/1.png": "cat", "2.jpg": "dog", "3.png": "cat"}'),
        ("t.jsonl", '{"file": "1.png", "label": "cat"}\n\n{"file": "2.jpg", "label": "dog"}\n{"file": "3.png", "label": "cat"}\n'),
    ],
)  # fmt: skip
def test_labels_are_those_of_the_table_when_it_is_written_as_people_do(
    folder: Path, name: str, text: str
) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    assert listed(found(folder, name)) == WANTED


@pytest.mark.parametrize("labels", ["0", "00017", "3.0", "True", "NA", "ünï", "=1+1"])
def test_label_is_kept_as_it_is_written_when_it_looks_like_something_else(folder: Path, labels: str) -> None:
    (folder / "t.csv").write_text(f"file,label\n1.png,{labels}\n2.jpg,other\n", encoding="utf-8")
    assert set(found(folder, "t.csv").classes) == {labels, "other"}


def test_metadata_of_hugging_face_is_found_when_it_lies_at_the_top_or_in_splits(tmp_path: Path) -> None:
    whole = tree(tmp_path / "whole", "a.png", "b.png")
    (whole / "metadata.csv").write_text("file_name,label\na.png,x\nb.png,y\n")
    assert listed(found(whole)) == [("a.png", "x", OPEN), ("b.png", "y", OPEN)]
    split = tree(tmp_path / "split", "train/a.png", "train/b.png", "test/a.png", "test/b.png")
    for name, (first, second) in {"train": "xy", "test": "yx"}.items():
        rows = [{"file_name": "a.png", "label": first}, {"file_name": "b.png", "label": second}]
        (split / name / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert set(listed(found(split))) == {
        ("train/a.png", "x", TRAIN), ("train/b.png", "y", TRAIN), ("test/a.png", "y", TEST), ("test/b.png", "x", TEST),
    }  # fmt: skip


def test_splits_are_those_of_the_table_when_it_has_such_a_column(folder: Path) -> None:
    rows = "file,label,split\n1.png,a,train\n2.jpg,b,Validation\n3.png,b,test\n"
    (folder / "t.csv").write_text(rows)
    assert [split for _, _, split in listed(found(folder, "t.csv"))] == [TRAIN, VAL, TEST]
    (folder / "t.csv").write_text(rows.replace("Validation", "later"))
    assert refused(folder, "t.csv").endswith("row 2: the split is 'later', not train, val or test")


def test_what_table_and_folder_do_not_share_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = tree(tmp_path, "1.png", "2.png", "3.png", "4.png", "5.png", "x/same.png", "y/same.png")
    rows = ["1.png,a", "2.png,b", "3.png,a", "3.png,b", "4.png,", "gone.png,a", "same.png,b", "1.png,a"]
    (folder / "t.csv").write_text("file,label\n" + "\n".join(rows))
    whole = found(folder, "t.csv")
    assert listed(whole) == [("1.png", "a", OPEN), ("2.png", "b", OPEN)]
    assert whole.left_out.counts == {
        "two labels in t.csv": 1,
        "no label in t.csv": 1,
        "not listed in t.csv": 3,
        "listed, but no image of that name is there": 1,
        "listed, but several images have that name": 1,
    }
    assert {"path": "t.csv, row 6: gone.png", "reason": "listed, but no image of that name is there"} in (
        whole.left_out.listed
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "cannot be read as a table"),
        (b"file,label\n", "holds no rows"),
        (b"\xff\xfe\x00file", "not UTF-8 (byte 0)"),
        (b"file,label\n1.png,caf\xe9\n", "not UTF-8"),
        (b"what,breed,size\nx,a,10\ny,b,20\n", "no column of what, breed, size names image files that are there"),
        (b"file,breed,size\n1.png,a,1\n2.jpg,b,2\n", "no column of file, breed, size holds the labels: call it label"),
        (b"file,label\n1.png,a\n2.jpg,a\n", "only one class, a, has images"),
        (b"file,label\nx.png,a\ny.png,b\n", "no image in a class folder"),
    ],
)  # fmt: skip
def test_table_is_refused_in_one_line_when_it_is_not_clear(folder: Path, text: bytes, said: str) -> None:
    (folder / "t.csv").write_bytes(text)
    assert said in refused(folder, "t.csv")


@pytest.mark.parametrize("text", ["[1, 2]", "{", '"x"', '[{"file": "1.png"}]', "[[1, 2], [3, 4, 5]]"])
def test_json_is_refused_in_one_line_when_it_is_no_table(folder: Path, text: str) -> None:
    (folder / "t.json").write_text(text)
    assert "t.json: " in refused(folder, "t.json")


@pytest.mark.parametrize("labels", ["none.csv", "../outside.csv", "link.csv", "images"])
def test_table_is_refused_when_it_is_not_in_the_folder(folder: Path, labels: str) -> None:
    (folder.parent / "outside.csv").write_text("file,label\n1.png,a\n2.jpg,b\n")
    (folder / "link.csv").symlink_to(folder.parent / "outside.csv")
    assert f"ingest.labels: {labels}: no such file in" in refused(folder, labels)


def test_groups_are_those_of_a_column_when_it_is_named(folder: Path) -> None:
    (folder / "t.csv").write_text("file,label,Patient\n1.png,a,p1\n2.jpg,b,p2\n3.png,b,p1\n")
    assert found(folder, "t.csv", "column:Patient").groups == ["p1", "p2", "p1"]
    assert "t.csv has no column doctor" in refused(folder, "t.csv", "column:doctor")
    assert "there is no table of labels" in refused(folder, None, "column:Patient")


def test_groups_are_read_off_paths_when_a_level_or_a_pattern_is_given(tmp_path: Path) -> None:
    folder = tree(tmp_path, "a/p1/1.png", "a/p2/7_x.png", "b/p1/2.png", "b/8_x.png")
    whole = found(folder, groups=1)
    paths = [path for path, _, _ in listed(whole)]
    assert dict(zip(paths, whole.groups or [], strict=True)) == {
        "a/p1/1.png": "p1", "a/p2/7_x.png": "p2", "b/p1/2.png": "p1", "b/8_x.png": "b",
    }  # fmt: skip
    names = found(folder, groups=r"(\d)_x").groups
    assert names == ["/a/p1/1.png", "7", "8", "/b/p1/2.png"]
    assert "no regular expression" in refused(folder, groups="(")
    assert "says of no image what it belongs to" in refused(folder, groups="patient")
    assert "says of no image what it belongs to" in refused(folder, groups=4)

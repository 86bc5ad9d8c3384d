"""The stage as a whole, on small folders made here."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.core.common.errors import BadInput
from tasks.core.config.params import IngestParams
from tasks.core.data.dataset import open_dataset
from tasks.core.data.image_samples import Target, choose_target
from tasks.core.data.sources import TEST, VAL
from tasks.ingest import _fraction, ingest
from tests.unit.data.test_idx import write_idx

ROOT = Path(__file__).parents[2]
SIDE = 12


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise(rng: np.random.Generator, *shape: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def make(folder: Path, rng: np.random.Generator, classes: dict[str, int]) -> Path:
    """An image folder: so many grey images a class (or split/class)."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise(rng, SIDE, SIDE).save(folder / name / f"{i:03}.png")
    return folder


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> Path:
    return make(tmp_path / "set", rng, {"a": 20, "b": 30})


def run(source: Path, **params: Any) -> Path:
    """Ingest into a new folder beside the source."""
    out = source.with_name(f"out{len(list(source.parent.iterdir()))}")
    out.mkdir()
    ingest(IngestParams(source="src", **params), source, out)
    return out


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def command(source: Path, cwd: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """The stage as DVC runs it."""
    (cwd / "params.yaml").write_text("ingest: {source: src, min_per_class: 3}\n", encoding="utf-8")
    return subprocess.run(
        [*before, sys.executable, "-m", "tasks.ingest", "--source", str(source), "--out", str(cwd / "out")],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- what it writes ----------------------------------------------------------------------------------


def test_ingest_packs_every_image_once_when_all_are_good(source: Path) -> None:
    out = run(source)
    dataset = open_dataset(out)
    rows = manifest(out)
    images_NHWC = np.concatenate([s.raw_N for s in (dataset.train, dataset.val, dataset.test)])
    labels_N = np.concatenate([s.labels_N for s in (dataset.train, dataset.val, dataset.test)])
    assert dataset.classes == ["a", "b"]
    assert len(images_NHWC) == len(rows) == 50
    for row, pixels_HWC, label in zip(rows, images_NHWC, labels_N, strict=True):
        with Image.open(source / row["path"]) as image:
            np.testing.assert_array_equal(pixels_HWC[..., 0], np.asarray(image))
        assert row["label"] == dataset.classes[label] == row["path"][0]
        assert len(row["sha256"]) == 16
    assert [row["split"] for row in rows] == ["train"] * 30 + ["val"] * 10 + ["test"] * 10


@pytest.mark.parametrize(
    ("images", "val", "test"),
    [(60, 0.2, 0.2), (4500, 0.2, 0.156), (12_000, 0.167, 0.15), (70_000, 0.1, 0.15)],
)
def test_split_holds_out_enough_to_tell_something_when_training_can_spare_it(
    images: int, val: float, test: float
) -> None:
    assert _fraction("auto", images, VAL) == val
    assert _fraction("auto", images, TEST) == test
    assert _fraction(0.3, images, VAL) == 0.3


def test_ingest_writes_equal_files_when_run_again_on_a_copy_made_in_another_order(source: Path) -> None:
    copy = source.with_name("copy")
    for path in sorted(source.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first, second = run(source), run(copy)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(
        ["dataset.json", "manifest.csv", "metrics.json", "report.json"]
        + [f"{s}_{kind}.npy" for s in ("train", "val", "test") for kind in ("images", "labels")]
    )
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_ingest_writes_equal_files_when_there_are_fewer_workers(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(source)
    monkeypatch.setattr("tasks.core.data.image_samples.FILES_A_JOB", 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert load(run(source) / "dataset.json") == load(first / "dataset.json")


def test_ingest_keeps_given_splits_and_draws_val_from_train(tmp_path: Path, rng: np.random.Generator) -> None:
    classes = {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 6}
    out = run(make(tmp_path / "set", rng, classes), val_fraction=0.25)
    assert load(out / "dataset.json")["counts"] == {
        "train": {"a": 15, "b": 15},
        "val": {"a": 5, "b": 5},
        "test": {"a": 5, "b": 6},
    }
    given = {row["path"].split("/")[0] for row in manifest(out) if row["split"] == "test"}
    assert given == {"test"}


def test_ingest_uses_val_when_it_is_given(tmp_path: Path, rng: np.random.Generator) -> None:
    classes = {f"{split}/{label}": 10 for split in ("train", "valid", "test") for label in "ab"}
    out = run(make(tmp_path / "set", rng, classes))
    assert load(out / "metrics.json") == {
        "train_images": 20,
        "val_images": 20,
        "test_images": 20,
        "classes": 2,
        "left_out": 0,
        "duplicates": 0,
        "near_duplicates": 0,
    }


def test_ingest_reports_sizes_modes_and_counts(source: Path, rng: np.random.Generator) -> None:
    noise(rng, 20, 10, 3).save(source / "a" / "colour.png")
    (source / "b" / "empty.png").touch()
    (source / "b" / "text.png").write_text("not an image")
    (source / "b" / "notes.txt").write_text("nor this")
    out = run(source)
    report = load(out / "report.json")
    assert (report["found"], report["kept"], report["resized"]) == (54, 51, 1)
    assert report["modes"] == {"L": 50, "RGB": 1}
    assert report["sizes"] == {"12x12": 50, "20x10": 1}
    assert report["left_out_counts"] == {
        "empty file": 1,
        "no image in a known format": 1,
        "not an image by its extension": 1,
    }
    assert {entry["path"] for entry in report["left_out"]} == {
        f"b/{n}" for n in ("empty.png", "text.png", "notes.txt")
    }
    assert open_dataset(out).input.shape == (12, 12, 3)
    assert load(out / "dataset.json")["source"] == "src"


def test_ingest_leaves_out_what_only_decoding_finds_damaged(source: Path) -> None:
    path = source / "a" / "003.png"
    path.write_bytes(path.read_bytes()[:-60])
    report = load(run(source) / "report.json")
    assert report["left_out"] == [{"path": "a/003.png", "reason": "damaged or truncated"}]


def test_ingest_counts_duplicates_and_conflicting_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    source = make(tmp_path / "set", rng, {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 6})
    shutil.copy(source / "train/a/001.png", source / "train/a/900.png")
    shutil.copy(source / "test/b/002.png", source / "train/b/901.png")
    shutil.copy(source / "train/a/005.png", source / "train/b/902.png")
    out = run(source)
    report = load(out / "report.json")
    assert report["duplicates"] == {
        "within": 1,
        "across_splits": 1,
        "examples": [["train/a/001.png", "train/a/900.png"], ["test/b/002.png", "train/b/901.png"]],
    }
    assert report["conflicting_labels"] == 2
    assert load(out / "metrics.json")["duplicates"] == 2
    kept = {row["path"] for row in manifest(out)}
    assert {"train/a/001.png", "test/b/002.png"} <= kept
    assert kept.isdisjoint({f"train/{n}.png" for n in ("a/900", "b/901", "b/902", "a/005")})
    assert len(report["warnings"]) == 2


def test_ingest_reads_idx_when_there_are_such_files(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "set"
    source.mkdir()
    pixels_NHW = rng.integers(0, 256, (40, 9, 10))
    write_idx(source / "train-images-idx3-ubyte", pixels_NHW[:30])
    write_idx(source / "train-labels-idx1-ubyte", np.arange(30) % 2)
    write_idx(source / "t10k-images-idx3-ubyte", pixels_NHW[30:])
    write_idx(source / "t10k-labels-idx1-ubyte", np.arange(10) % 2)
    out = run(source)
    dataset = open_dataset(out)
    np.testing.assert_array_equal(dataset.test.raw_N[..., 0], pixels_NHW[30:])
    assert (len(dataset.train), len(dataset.val)) == (24, 6)
    for row, pixels_HWC in zip(manifest(out), dataset.train.raw_N, strict=False):
        number = int(row["path"].removeprefix("train-images-idx3-ubyte#"))
        np.testing.assert_array_equal(pixels_HWC[..., 0], pixels_NHW[number])
    resized = run(source, size=16, channels="rgb")
    assert open_dataset(resized).input.shape == (16, 16, 3)
    assert load(resized / "report.json")["resized"] == 40


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({(30, 40): 6, (20, 20): 4}, (30, 40)),
        ({(30, 40): 5, (40, 31): 5}, (40, 31)),  # a tie: the larger
        ({(480, 640): 10}, (168, 224)),
        ({(4, 6): 10}, (8, 8)),
        ({(30, 40): 2, (50, 20): 2, (60, 60): 2}, (50, 50)),  # none has half: the median side
        ({(900, 800): 1, (300, 301): 1, (40, 10): 1}, (224, 224)),
    ],
)
def test_target_follows_the_rule_when_the_size_is_auto(
    sizes: dict[tuple[int, int], int], expected: tuple[int, int]
) -> None:
    assert choose_target(IngestParams(source="x"), Counter(sizes), grey=True) == Target(*expected, 1)


# --- what it refuses ---------------------------------------------------------------------------------


def refused(source: Path, **params: Any) -> str:
    """What ingest says, in one line, when it refuses `source`."""
    with pytest.raises(BadInput) as caught:
        run(source, **params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ingest_refuses_when_the_folder_is_missing(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere")


def test_ingest_refuses_when_the_folder_is_empty(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert "set: no image in a class folder" in refused(tmp_path / "set")


def test_ingest_refuses_when_images_are_in_no_class_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "set").mkdir()
    noise(rng, SIDE, SIDE).save(tmp_path / "set" / "1.png")
    assert "passed over: 1 not in a class folder" in refused(tmp_path / "set")


def test_ingest_refuses_when_no_file_can_be_read(source: Path) -> None:
    for path in source.rglob("*.png"):
        path.write_bytes(b"")
    assert "no image can be read (50 empty file)" in refused(source)


def test_ingest_refuses_when_there_is_one_class(tmp_path: Path, rng: np.random.Generator) -> None:
    source = make(tmp_path / "set", rng, {"lonely": 20})
    (source / "empty").mkdir()
    assert "only one class, lonely, has images" in refused(source)


def test_ingest_refuses_when_all_images_are_alike(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (SIDE, SIDE), "grey").save(tmp_path / "set" / name / f"{i:02}.png")
    found = refused(tmp_path / "set")
    assert "images in a (0), b (0); left out: 24 same pixels under two labels" in found


@pytest.mark.parametrize(("side", "becomes"), [(4, 8), pytest.param(4000, 224, marks=pytest.mark.slow)])
def test_ingest_scales_images_when_they_are_very_small_or_large(
    tmp_path: Path, side: int, becomes: int
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            noise(rng, 4, 4).resize((side, side * 3 // 4)).save(tmp_path / "set" / name / f"{i}.png")
    out = run(tmp_path / "set", min_per_class=3)
    assert load(out / "dataset.json")["image_shape"] == [max(8, becomes * 3 // 4), becomes, 1]


def test_ingest_names_class_and_count_when_a_class_is_too_small(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    source = make(tmp_path / "set", rng, {"a": 20, "rare": 9})
    assert "fewer than ingest.min_per_class (10) images in rare (9)" in refused(source)
    run(source, min_per_class=9)


def test_ingest_counts_only_what_is_kept_when_it_judges_a_class(source: Path) -> None:
    for i in range(15):
        (source / "a" / f"{i:03}.png").write_bytes(b"")
    assert "images in a (5); left out: 15 empty file" in refused(source)


def test_ingest_refuses_when_a_class_is_only_tested(tmp_path: Path, rng: np.random.Generator) -> None:
    source = make(tmp_path / "set", rng, {"train/a": 20, "train/b": 20, "test/a": 5, "test/c": 12})
    assert "no training images of c" in refused(source)


# --- as a command ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_ends_with_0_and_prints_plain_progress(source: Path, tmp_path: Path) -> None:
    done = command(source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.endswith("50/50")] == [
        "headers 50/50",
        "decode 50/50",
        "pack 50/50",
    ]
    assert not (tmp_path / "out" / "rows.partial").exists()


@pytest.mark.slow
def test_command_ends_with_2_and_one_line_when_input_is_bad(tmp_path: Path) -> None:
    done = command(tmp_path / "nowhere", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ingest: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_command_stays_silent_when_files_are_damaged(source: Path, tmp_path: Path) -> None:
    for i, compression in enumerate(("tiff_lzw", "tiff_deflate", "jpeg")):
        path = source / "a" / f"{i}.tif"
        noise(np.random.default_rng(i), 40, 40, 3).save(path, compression=compression)
        damaged = bytearray(path.read_bytes())
        damaged[60:900] = b"\x55" * 840
        path.write_bytes(damaged)
    done = command(source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


NAMESPACES = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not NAMESPACES, reason="no user namespaces, so no small file system to fill")
@pytest.mark.parametrize("size", ["4k", "12k"])  # too small for the rows; for the arrays
def test_command_ends_with_1_and_nothing_half_written_when_the_disk_is_full(
    source: Path, tmp_path: Path, size: str
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    done = command(
        source,
        small,
        *("unshare", "-rm", "sh", "-c"),
        f'cp params.yaml .. && mount -t tmpfs -o size={size} tmpfs "$PWD" && cd "$PWD" '
        '&& ln -s ../params.yaml . && "$@"; code=$?; ls -A; exit $code',
        "sh",
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("ingest: the disk is full")
    assert done.stderr.count("\n") == 1
    assert done.stdout.splitlines()[-1] == "params.yaml"


def test_ingest_warns_when_images_held_out_look_like_images_for_training(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    source = make(
        tmp_path / "set", rng, {f"{split}/{name}": 20 for split in ("train", "val", "test") for name in "ab"}
    )
    with Image.open(source / "train/b/007.png") as image:
        image.point(lambda value: int(value * 0.9)).save(source / "test/b/copy.png")
    report = load(run(source) / "report.json")
    near = report["near_duplicates"]
    assert (near["test"], near["false_alarm_rate"]) == (1, 0.0)
    (pair,) = [pair for pair in near["examples"] if pair[1] == "test/b/copy.png"]
    assert pair[0] == "train/b/007.png"
    assert "1 test and 0 val images look like one for training" in " ".join(report["warnings"])


def test_ingest_keeps_groups_whole_when_asked_to(tmp_path: Path, rng: np.random.Generator) -> None:
    source = make(tmp_path / "set", rng, {f"{name}/{person}": 5 for name in "ab" for person in range(20)})
    places: dict[str, set[str]] = {}
    for row in manifest(run(source, groups=1)):
        places.setdefault(row["path"].split("/")[1], set()).add(row["split"])
    assert {len(splits) for splits in places.values()} == {1}
    assert {split for splits in places.values() for split in splits} == {"train", "val", "test"}

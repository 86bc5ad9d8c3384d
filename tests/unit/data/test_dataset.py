"""The packed data set: duplicates, splits, arrays, and opening them again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.data.dataset import Dataset, Split, open_dataset, subset
from tasks.core.data.packing import (
    ACROSS,
    CONFLICT,
    UNUSABLE,
    WITHIN,
    Rows,
    draw_splits,
    mark_duplicates,
    write_arrays,
)
from tasks.core.data.sources import OPEN, TEST, TRAIN, VAL

FRACTIONS = {TEST: 0.2, VAL: 0.1}


def marked(digests: list[int], labels: list[int], places: list[int]) -> tuple[list[int], list[int]]:
    places_N = np.array(places, np.int8)
    kept_N = mark_duplicates(np.array(digests, np.uint64), np.array(labels, np.int32), places_N)
    return places_N.tolist(), kept_N.tolist()


def test_mark_duplicates_keeps_all_when_all_differ() -> None:
    assert marked([5, 3, 2**64 - 1], [0, 1, 0], [OPEN] * 3) == ([OPEN] * 3, [-1] * 3)


def test_mark_duplicates_keeps_the_first_when_split_and_label_are_equal() -> None:
    assert marked([7, 7, 9, 7], [1, 1, 1, 1], [TRAIN] * 4) == ([TRAIN, WITHIN, TRAIN, WITHIN], [-1, 0, -1, 0])


def test_mark_duplicates_keeps_test_before_val_before_train_when_splits_differ() -> None:
    places, kept = marked([7, 7, 7, 8, 8], [1, 1, 1, 0, 0], [TRAIN, VAL, TEST, TRAIN, VAL])
    assert places == [ACROSS, ACROSS, TEST, ACROSS, VAL]
    assert kept == [2, 2, -1, 4, -1]


def test_mark_duplicates_leaves_all_out_when_labels_conflict() -> None:
    places, kept = marked([7, 7, 7, 8], [1, 1, 0, 0], [TRAIN, TEST, TRAIN, TRAIN])
    assert places == [CONFLICT, CONFLICT, CONFLICT, TRAIN]
    assert kept == [-1, -1, -1, -1]


def test_mark_duplicates_passes_over_rows_when_they_are_unusable() -> None:
    assert marked([0, 0, 0], [1, 0, 1], [UNUSABLE, UNUSABLE, OPEN]) == ([UNUSABLE, UNUSABLE, OPEN], [-1] * 3)
    assert marked([0], [0], [UNUSABLE]) == ([UNUSABLE], [-1])


def drawn(digests_N: np.ndarray, labels_N: np.ndarray, seed: int = 0) -> np.ndarray:
    places_N = np.full(len(digests_N), OPEN, np.int8)
    draw_splits(digests_N, labels_N, places_N, FRACTIONS, seed)
    return places_N


@pytest.fixture
def many() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 2**64, 4000, np.uint64), rng.integers(0, 4, 4000).astype(np.int32)


def test_draw_splits_is_stratified(many: tuple[np.ndarray, np.ndarray]) -> None:
    digests_N, labels_N = many
    places_N = drawn(digests_N, labels_N)
    for label in range(4):
        of_class = places_N[labels_N == label]
        assert (of_class == TEST).sum() == round(0.2 * len(of_class))
        assert (of_class == VAL).sum() == round(0.1 * len(of_class))
        assert (of_class == TRAIN).sum() == len(of_class) - (of_class == TEST).sum() - (of_class == VAL).sum()


def test_draw_splits_does_not_depend_on_the_order_of_rows(many: tuple[np.ndarray, np.ndarray]) -> None:
    digests_N, labels_N = many
    order = np.random.default_rng(1).permutation(len(digests_N))
    np.testing.assert_array_equal(drawn(digests_N[order], labels_N[order]), drawn(digests_N, labels_N)[order])


def test_draw_splits_differs_when_the_seed_does(many: tuple[np.ndarray, np.ndarray]) -> None:
    assert (drawn(*many, seed=0) != drawn(*many, seed=-1)).mean() > 0.2


def test_draw_splits_moves_few_images_when_some_are_added(many: tuple[np.ndarray, np.ndarray]) -> None:
    digests_N, labels_N = many
    before = drawn(digests_N[:3600], labels_N[:3600])
    after = drawn(digests_N, labels_N)[:3600]
    assert (before != after).mean() < 0.03


@pytest.mark.parametrize("count", [3, 4, 5])
def test_draw_splits_gives_each_split_an_image_when_a_class_is_small(count: int) -> None:
    places_N = drawn(np.arange(count, dtype=np.uint64), np.zeros(count, np.int32))
    assert set(places_N.tolist()) == {TRAIN, VAL, TEST}


def test_draw_splits_leaves_given_splits_alone() -> None:
    places_N = np.array([TEST] * 5 + [OPEN] * 20 + [UNUSABLE], np.int8)
    draw_splits(np.arange(26, dtype=np.uint64), np.zeros(26, np.int32), places_N, {VAL: 0.1}, 0)
    assert places_N[:5].tolist() == [TEST] * 5
    assert places_N[-1] == UNUSABLE
    assert sorted(places_N[5:25].tolist()) == [TRAIN] * 18 + [VAL] * 2


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder as ingest writes it; its rows [30, 5, 4, 3] and their places."""
    rng = np.random.default_rng(0)
    rows_NHWC = rng.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
    (tmp_path / "one").write_bytes(b"head" + rows_NHWC[:10].tobytes())
    (tmp_path / "two").write_bytes(rows_NHWC[10:].tobytes())
    rows = Rows([(tmp_path / "one", 4, 10), (tmp_path / "two", 0, 20)], (5, 4, 3))
    places_N = rng.choice(np.array([TRAIN, VAL, TEST, UNUSABLE], np.int8), 30)
    labels_N = (np.arange(30) % 3).astype(np.int32)
    out = tmp_path / "out"
    out.mkdir()
    told: list[int] = []
    result = write_arrays(rows, labels_N, places_N, out, told.append)
    assert sum(told) == 30
    about = {
        "classes": ["a", "b", "c"],
        "image_shape": [5, 4, 3],
        "channel_mean": result.channel_mean,
        "channel_std": result.channel_std,
        "digest": result.digest,
    }
    (out / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return out, rows_NHWC, places_N


def test_open_dataset_gives_the_rows_that_were_written(
    packed: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    out, rows_NHWC, places_N = packed
    dataset = open_dataset(out)
    for split, part in ((TRAIN, dataset.train), (VAL, dataset.val), (TEST, dataset.test)):
        np.testing.assert_array_equal(part.raw_N, rows_NHWC[places_N == split])
        np.testing.assert_array_equal(part.labels_N, np.flatnonzero(places_N == split) % 3)
        assert len(part) == (places_N == split).sum()
        assert isinstance(part.raw_N, np.memmap)
    assert dataset.input.shape == (5, 4, 3)


def test_write_arrays_writes_what_numpy_would(packed: tuple[Path, np.ndarray, np.ndarray]) -> None:
    out, rows_NHWC, places_N = packed
    np.save(out / "expected.npy", rows_NHWC[places_N == TRAIN])
    assert (out / "train_images.npy").read_bytes() == (out / "expected.npy").read_bytes()


def test_write_arrays_gives_the_moments_of_the_training_images(
    packed: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    out, rows_NHWC, places_N = packed
    train_NHWC = rows_NHWC[places_N == TRAIN] / 255
    dataset = open_dataset(out)
    np.testing.assert_allclose(dataset.input.channel_mean, train_NHWC.mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(dataset.input.channel_std, train_NHWC.std(axis=(0, 1, 2)), atol=1e-6)


def test_write_arrays_gives_a_spread_to_divide_by_when_a_channel_is_constant(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(bytes(range(4)) * 4)
    places_N = np.full(4, TRAIN, np.int8)
    rows = Rows([(tmp_path / "rows", 0, 4)], (1, 1, 4))
    result = write_arrays(rows, np.zeros(4, np.int32), places_N, tmp_path, lambda _: None)
    assert result.channel_std == [round(1 / 255, 6)] * 4


@pytest.mark.parametrize("swapped", [False, True])
def test_write_arrays_digest_differs_exactly_when_arrays_do(tmp_path: Path, swapped: bool) -> None:
    (tmp_path / "rows").write_bytes(bytes(range(12)))
    rows = Rows([(tmp_path / "rows", 0, 3)], (2, 2, 1))
    places_N = np.array([TRAIN, VAL, TEST], np.int8)
    labels_N = np.array([0, 1, 1], np.int32)
    first = write_arrays(rows, labels_N, places_N, tmp_path, lambda _: None).digest
    labels_N[1] = 0 if swapped else 1
    second = write_arrays(rows, labels_N, places_N, tmp_path, lambda _: None).digest
    assert (first != second) is swapped


def open_without(out: Path, name: str) -> Dataset:
    (out / name).unlink()
    return open_dataset(out)


@pytest.mark.parametrize("name", ["dataset.json", "val_images.npy", "test_labels.npy"])
def test_open_dataset_names_the_file_when_one_is_missing(
    packed: tuple[Path, np.ndarray, np.ndarray], name: str
) -> None:
    with pytest.raises(BadInput, match=f"{name}: no such file"):
        open_without(packed[0], name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", b"{", "dataset.json: not a description"),
        ("dataset.json", b'{"classes": []}', "dataset.json: not a description"),
        ("train_images.npy", b"", "train_images.npy: not a whole NumPy array"),
        ("train_images.npy", b"\x93NUMPY\x01", "train_images.npy: not a whole NumPy array"),
    ],
)
def test_open_dataset_names_the_file_when_one_is_damaged(
    packed: tuple[Path, np.ndarray, np.ndarray], name: str, content: bytes, message: str
) -> None:
    (packed[0] / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        open_dataset(packed[0])


def test_open_dataset_refuses_when_arrays_do_not_fit_together(
    packed: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    np.save(packed[0] / "val_labels.npy", np.zeros(3, np.int64))
    with pytest.raises(BadInput, match="does not fit 3 labels"):
        open_dataset(packed[0])


def test_open_dataset_refuses_when_an_array_is_of_another_kind(
    packed: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    np.save(packed[0] / "val_labels.npy", np.zeros(3, np.float32))
    with pytest.raises(BadInput, match="holds float32, not int64"):
        open_dataset(packed[0])


def test_drawn_is_each_image_once_or_every_class_equally_often_when_sampling_says_so() -> None:
    labels_N = np.repeat([0, 1], [900, 100])
    uniform = Split(np.zeros((1000, 1, 1, 1), np.uint8), labels_N)
    balanced = replace(uniform, sampling="balanced")
    once, often = (split.drawn(1000, np.random.default_rng(0)) for split in (uniform, balanced))
    assert sorted(once) == list(range(1000))
    assert 450 < labels_N[often].sum() < 550
    assert len(subset(balanced, 0.5, 0).drawn(10, np.random.default_rng(0))) == 10
    assert subset(balanced, 0.5, 0).sampling == "balanced"

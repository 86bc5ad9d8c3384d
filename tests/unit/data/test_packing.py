"""Groups that must not be torn apart when splits are drawn."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.data.packing import SCATTERED, draw_splits, mark_scattered
from tasks.core.data.sources import OPEN, TEST, TRAIN, VAL

FRACTIONS = {TEST: 0.2, VAL: 0.1}


def grouped(
    images: int, groups: int, seed: int = 0
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int64]]:
    """Digests, labels of three classes, and groups, most of which have images of one class."""
    rng = np.random.default_rng(seed)
    groups_N = rng.integers(0, groups, images)
    labels_N = np.where(rng.random(images) < 0.9, groups_N % 3, rng.integers(0, 3, images)).astype(np.int32)
    return rng.integers(0, 2**63, images).astype(np.uint64), labels_N, groups_N


@pytest.mark.parametrize("groups", [9, 60, 900])
def test_groups_stay_whole_and_fractions_are_met_when_splits_are_drawn(groups: int) -> None:
    digests_N, labels_N, groups_N = grouped(3_000, groups)
    places_N = np.full(3_000, OPEN, np.int8)
    draw_splits(digests_N, labels_N, places_N, FRACTIONS, 0, groups_N)
    of_group = [set(places_N[groups_N == group]) for group in range(groups)]
    assert max(map(len, of_group)) == 1
    tolerance = 1 / groups * 3 + 0.02
    assert np.mean(places_N == TEST) == pytest.approx(0.2, abs=tolerance)
    assert np.mean(places_N == VAL) == pytest.approx(0.1, abs=tolerance)
    for split in (TRAIN, VAL, TEST):
        assert set(labels_N[places_N == split]) == {0, 1, 2}


def test_most_groups_stay_in_their_split_when_images_of_others_are_added() -> None:
    digests_N, labels_N, groups_N = grouped(3_000, 300)
    few, many = np.full(2_700, OPEN, np.int8), np.full(3_000, OPEN, np.int8)
    draw_splits(digests_N[:2_700], labels_N[:2_700], few, FRACTIONS, 0, groups_N[:2_700])
    draw_splits(digests_N, labels_N, many, FRACTIONS, 0, groups_N)
    assert np.mean(few == many[:2_700]) > 0.8


def test_group_keeps_the_images_of_its_last_split_when_several_were_given() -> None:
    places_N = np.array([TRAIN, TEST, TEST, VAL, TRAIN, TRAIN, -2], np.int8)
    mark_scattered(places_N, np.array([0, 0, 0, 1, 1, 2, 0]))
    assert places_N.tolist() == [SCATTERED, TEST, TEST, VAL, SCATTERED, TRAIN, -2]

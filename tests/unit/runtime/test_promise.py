"""The sample that a model is checked on."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.data.dataset import balanced
from tasks.core.runtime import promise
from tests.builders import rows_model, ship


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 40))
def test_sample_is_balanced_when_classes_are_of_any_size(labels: list[int], count: int) -> None:
    labels_N = np.array(labels)
    rows = balanced(labels_N, count, 0)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(labels))
    assert (np.diff(rows) > 0).all()
    assert (rows == balanced(labels_N, count, 0)).all()
    there, taken = np.bincount(labels_N, minlength=5), np.bincount(labels_N[rows], minlength=5)
    assert all(taken[c] == there[c] or taken[c] >= taken.max() - 1 for c in range(5))


def test_sample_has_no_date_when_it_is_written(tmp_path: Path) -> None:
    model = ship(tmp_path, rows_model())
    with zipfile.ZipFile(model.with_name(promise.SAMPLES)) as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}

"""What may be lost, and how that is told from many images and from few."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.evaluation.bar import Bar, Loss
from tasks.core.evaluation.stats import loss, mcnemar


def test_the_upper_end_decides_when_images_are_many() -> None:
    bar = Bar(1.0, 500)
    assert bar.provable
    assert bar.passes(Loss(0.9, 0.8, 1.0, 0.05))
    assert not bar.passes(Loss(0.1, -0.9, 1.1, 0.5))


def test_one_standard_error_decides_when_images_are_too_few_to_prove_anything() -> None:
    bar = Bar(1.0, 499)
    assert not bar.provable
    assert bar.passes(Loss(1.4, -1.0, 4.0, 0.5))
    assert not bar.passes(Loss(1.6, -1.0, 4.0, 0.5))


def test_a_bar_of_zero_is_held_as_it_stands_when_images_are_few() -> None:
    assert not Bar(0.0, 20).passes(Loss(0.0, -5.0, 5.0, 3.0))
    assert Bar(0.0, 20).passes(Loss(0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("images", [27, 100, 667])
def test_no_smaller_loss_is_significant_when_it_is_below_what_images_resolve(images: int) -> None:
    lost = round(Bar(0.75, images).resolvable_points * images / 100)

    def p_one_sided(count: int) -> float:
        reference = np.ones(images, bool)
        return mcnemar(reference, np.arange(images) >= count) / 2

    assert p_one_sided(lost) < 0.05 <= p_one_sided(lost - 1)


def test_standard_error_is_that_of_paired_draws_when_repeated() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random(400) < 0.9
    candidate = np.where(rng.random(400) < 0.06, ~reference, reference)
    found = loss(reference, candidate, 2000, 0)
    again = [
        (reference[rows].mean() - candidate[rows].mean()) * 100 for rows in rng.integers(0, 400, (3000, 400))
    ]
    assert found.error == pytest.approx(np.std(again), rel=0.05)
    assert found.low < found.points < found.high

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


def test_the_loss_itself_decides_when_images_are_too_few_to_prove_anything() -> None:
    bar = Bar(1.0, 499)
    assert not bar.provable
    assert bar.passes(Loss(1.0, -1.0, 4.0, 0.5))
    assert not bar.passes(Loss(1.1, -1.0, 4.0, 0.5))


def test_a_bar_of_zero_is_held_as_it_stands_when_images_are_few() -> None:
    assert not Bar(0.0, 20).passes(Loss(0.0, -5.0, 5.0, 3.0))
    assert Bar(0.0, 20).passes(Loss(0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("lost", [-0.5, 0.0, 0.5])
def test_bar_is_met_when_examples_are_as_many_as_it_takes_to_prove_it(lost: float) -> None:
    wrong, right = 0.05 + lost / 200, 0.05 - lost / 200  # shares of all answers that turn

    def on(examples: int) -> Loss:
        half = 196 * np.sqrt((wrong + right) / examples)
        return Loss(lost, lost - half, lost + half, half / 1.96)

    needed = Bar(0.75, 1000).examples_to_prove(on(1000))
    assert Bar(0.75, 5000).passes(on(round(needed * 1.01)))
    assert not Bar(0.75, 5000).passes(on(round(needed * 0.99)))


def test_no_number_of_examples_proves_the_bar_when_as_much_is_lost() -> None:
    assert np.isinf(Bar(0.75, 1000).examples_to_prove(Loss(0.75, -0.1, 1.6, 0.4)))


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

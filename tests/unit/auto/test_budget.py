"""What a step costs, and how long a budget lasts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.core.auto.budget import (
    DENSE,
    LARGEST_BATCH,
    PASSES,
    SMALLEST_BATCH,
    STEPS,
    STEPS_AN_EPOCH,
    TEXT_PASSES,
    Cost,
    batch_of,
    cost_of,
    length,
    most_passes,
    passes,
)
from tasks.core.data.inputs import ImageInput, TextInput
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec

SMALL = Cost(macs=4_000_000, activations=80_000, operators=16)


def test_cost_counts_macs_outputs_and_operators_when_a_network_is_known() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    cost = cost_of(net.train(), ImageInput((8, 8, 3), [0.5] * 3, [0.5] * 3))
    assert cost == Cost(macs=64 * 27 * 8 + 512 * 5, activations=3 * 512 + 5, operators=4)
    assert net.training


def test_step_costs_more_when_the_batch_grows_but_less_an_image() -> None:
    assert SMALL.of_step(32) > SMALL.of_step(16) > SMALL.of_step(32) / 2


@pytest.mark.parametrize("images", [60, 900, 6000, 60_000, 1_000_000])
@pytest.mark.parametrize("budget", DENSE)
def test_length_is_within_bounds_and_keeps_to_the_work(images: int, budget: str) -> None:
    got = length(DENSE[budget], SMALL, images)
    assert 1 <= got.epochs <= PASSES
    assert SMALLEST_BATCH <= got.batch_size <= LARGEST_BATCH
    assert got.batch_size == SMALLEST_BATCH or images // got.batch_size >= STEPS_AN_EPOCH
    spent = images / got.batch_size * got.epochs * SMALL.of_step(got.batch_size)
    assert spent <= DENSE[budget] * 1.001 or got.epochs == 1


def test_few_images_get_more_passes_and_smaller_batches_than_many() -> None:
    few, many = (length(DENSE["normal"], SMALL, images) for images in (500, 50_000))
    assert few.epochs > many.epochs
    assert few.batch_size < many.batch_size


def test_passes_grow_with_the_work() -> None:
    assert passes(2e12, SMALL, 5000, 32) == 2 * passes(1e12, SMALL, 5000, 32)
    assert batch_of(1e9, SMALL, 5000) == SMALLEST_BATCH


def test_downscaling_makes_a_network_cheaper() -> None:
    specs = [Spec("convnet_small", 16, 0.0, (64, 64, 3), 10, downscale=factor) for factor in (1, 2)]
    full, half = (cost_of(build(spec), ImageInput((64, 64, 3), [0.5] * 3, [0.5] * 3)) for spec in specs)
    assert 3.5 * half.macs < full.macs


def test_downscaled_network_sees_the_means_of_pixels_when_it_is_built() -> None:
    spec = Spec("resnet_small", 8, 0.0, (32, 48, 3), 4, downscale=2)
    net = build(spec).eval()
    x_NCHW = torch.rand(2, 3, 32, 48)
    means_NCHW = x_NCHW.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    with torch.no_grad():
        assert torch.allclose(net(x_NCHW), net.get_submodule("network")(means_NCHW), atol=1e-5)


def test_step_costs_more_when_a_table_of_words_is_larger() -> None:
    small, large = (Cost(1000, 1000, 3, rows * 32) for rows in (1000, 100_000))
    assert large.of_step(64) > 2 * small.of_step(64)
    assert Cost(1000, 1000, 3) == Cost(1000, 1000, 3, 0), "networks of images have none"


def test_texts_are_passed_over_less_often_and_in_smaller_batches_when_work_abounds() -> None:
    images, texts = (
        length(1e15, SMALL, 6000, most_passes(given))
        for given in (ImageInput((8, 8, 1), [0.0], [1.0]), TextInput(256, 20))
    )
    assert (images.epochs, texts.epochs) == (PASSES, TEXT_PASSES)
    assert images.batch_size == LARGEST_BATCH
    assert texts.epochs * 6000 / texts.batch_size >= STEPS, "few passes still have many steps"

"""Statistics of batch norm, computed anew."""

import copy
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tasks.core.data.dataset import Split
from tasks.core.data.inputs import ImageInput
from tasks.core.training.batchnorm import recalibrate
from tests.unit.pruning.nets import GIVEN, SHAPE, network


@pytest.fixture
def split() -> Split:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (600, *SHAPE), dtype=np.uint8)
    return Split(images, draws.integers(0, 5, 600))


def test_recalibrate_gives_the_moments_of_the_data_when_there_is_one_batch(split: Split) -> None:
    model = network().train()
    few = Split(split.raw_N[:300], split.labels_N[:300])
    recalibrate(model, few, GIVEN)
    stem, norm = cast(nn.Sequential, model.stem)[:2]
    with torch.no_grad():
        y_NCHW = stem(GIVEN.tensor(torch.tensor(few.raw_N)))
    torch.testing.assert_close(norm.running_mean, y_NCHW.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, y_NCHW.var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert norm.momentum == 0.1
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("sampling", "white"), [("uniform", 0.05), ("balanced", 0.5)])
def test_recalibrate_sees_the_classes_that_training_sees_when_one_is_rare(
    sampling: str, white: float
) -> None:
    labels_N = (np.arange(4000) % 20 == 0).astype(np.int64)
    images_NHWC = np.broadcast_to(255 * labels_N.astype(np.uint8)[:, None, None, None], (4000, 2, 2, 1))
    norm = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    nn.init.ones_(norm[0].weight), nn.init.zeros_(norm[0].bias)
    recalibrate(norm, Split(images_NHWC, labels_N, sampling), ImageInput((2, 2, 1), [0.0], [1.0]))
    assert norm[1].running_mean.item() == pytest.approx(white, abs=0.04)


def test_recalibrate_touches_nothing_but_statistics_when_it_runs(split: Split) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, split, GIVEN)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {name for name in before if "running" in name or "num_batches" in name}
    loss = F.cross_entropy(model.train()(torch.rand(4, 1, 28, 28)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]  # what was computed in inference mode must not be in the way

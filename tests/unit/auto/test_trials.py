"""Trials at the edges of what their work pays for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tasks.core.auto.budget import SMALLEST_BATCH
from tasks.core.auto.trials import Base, Setting, Trials
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.data.dataset import Dataset, Split
from tasks.core.data.inputs import ImageInput
from tasks.core.distributed.world import World


def test_trial_learns_from_a_batch_when_its_work_does_not_pay_for_one_image(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)

    def split(images: int) -> Split:
        return Split(draws.integers(0, 256, (images, 8, 8, 1), np.uint8), np.arange(images) % 2)

    dataset = Dataset(
        ["a", "b"], ImageInput((8, 8, 1), [0.5], [0.3]), "digest", split(60), split(20), split(20)
    )
    trials = Trials(dataset, World(0, 1, torch.device("cpu")), tmp_path, seed=0)
    setting = Setting(TrainParams(arch="convnet_small", width=8), AugmentParams())
    outcomes = [trials.run(setting, 1.0), trials.run_on(Base(setting, 1.0), setting, 1.0)]
    assert [outcome.epochs for outcome in outcomes] == [1, 1]
    assert outcomes[1].images == SMALLEST_BATCH

"""Batches of images on the device that computes: drawn anew each epoch for training, or the same each time.

x_NHWC: uint8 images; x_NCHW: normalised float32; N is the global batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.data import Split
from tasks.core.optimizing import Recipe
from tasks.core.transforms import normalize

EVAL_BATCH = 500  # large enough for full speed, small enough for the caches


def training_batches(
    train: Split, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's global batches of (x_NHWC, labels_N); the last images that fill no batch wait for another
    epoch. With balanced sampling an epoch draws as many images as there are, each class equally often, rare
    images many times."""
    draws = np.random.default_rng([recipe.seed, epoch])
    labels_N = np.asarray(train.labels_N)
    if recipe.sampling == "balanced":
        share_N = 1 / np.bincount(labels_N)[labels_N]
        order = draws.choice(len(labels_N), len(labels_N), p=share_N / share_N.sum())
    else:
        order = draws.permutation(len(labels_N))
    for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
        # Sorted within the batch: pages of the memory map are touched in order.
        rows = np.sort(order[start : start + recipe.batch_size])
        yield to_device(train.images_NHWC[rows], device), to_device(labels_N[rows], device)


def to_device(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """A copy of `array` where it is computed with."""
    return torch.tensor(np.asarray(array), device=device)


def sample(
    model: nn.Module, split: Split, mean: list[float], std: list[float], images: int, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole batches of (x_NCHW, labels_N), the same ones each time; one smaller batch if there are fewer."""
    device = next(model.parameters()).device
    order = np.random.default_rng(0).permutation(len(split))[:images]
    size = min(batch, len(order))
    for start in range(0, len(order) - size + 1, size):
        rows = np.sort(order[start : start + size])
        x_NHWC = to_device(split.images_NHWC[rows], device)
        yield normalize(x_NHWC, mean, std), to_device(split.labels_N[rows], device)

"""Batch norm's statistics: computed anew where weights have changed without them, and shared by the ranks.

x_NCHW: normalised float32 images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed._functional_collectives import all_reduce

from tasks.core.batches import EVAL_BATCH, sample
from tasks.core.data import Split
from tasks.core.dist import World

RECALIBRATION_IMAGES = 2000


@torch.inference_mode()
def recalibrate(
    model: nn.Module, split: Split, mean: list[float], std: list[float], images: int = RECALIBRATION_IMAGES
) -> None:
    """Compute batch norm's statistics anew, as the mean over batches of images without augmentation.

    Those of a network before it was pruned no longer fit what its layers now put out (Li et al. 2020,
    "EagleEye", arXiv:2007.02491), and neither do averages of statistics fit an average of weights (Wu &
    Johnson 2021, arXiv:2105.07576, section 3.1).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative mean
        norm.train()
    for x_NCHW, _ in sample(model, split, mean, std, images, EVAL_BATCH):
        model(x_NCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


@contextmanager
def shared_statistics(model: nn.Module, world: World) -> Iterator[None]:
    """While it trains, `model` normalises by the global batch, not by each rank's part of it; alone, it does so
    anyway. Parameters and buffers stay the same tensors."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if world.size > 1:
        for name, norm in norms.items():
            model.set_submodule(name, SharedBatchNorm(norm, world.size))
    try:
        yield
    finally:
        for name, norm in norms.items():
            norm.train(model.training)
            model.set_submodule(name, norm)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of a batch that equally many ranks hold: nn.SyncBatchNorm, which is for GPUs
    alone, on any device."""

    def __init__(self, norm: nn.BatchNorm2d, ranks: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias, self.ranks = norm.weight, norm.bias, ranks
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """y_NCHW: x_NCHW, normalised by the mean and the variance of all ranks' parts."""
        if not self.training:
            return super().forward(x_NCHW)
        wide_NCHW = x_NCHW if x_NCHW.dtype == torch.float64 else x_NCHW.float()
        own_variance_C, own_mean_C = torch.var_mean(wide_NCHW, (0, 2, 3), correction=0)
        # One message a layer: what they wait for is each other, not the bytes.
        own_2C = torch.stack([own_mean_C, own_variance_C + own_mean_C.square()])
        mean_C, spread_C = self._over_ranks(own_2C).unbind()
        variance_C = (spread_C - mean_C.square()).clamp(min=0)
        centred_NCHW = x_NCHW - mean_C[:, None, None]
        self._remember(mean_C.detach(), variance_C.detach(), x_NCHW.numel() // len(mean_C) * self.ranks)
        factor_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return centred_NCHW * factor_C[:, None, None] + self.bias[:, None, None]

    def _over_ranks(self, mean_2C: Tensor) -> Tensor:
        """The mean of every rank's means; gradients go back to all of them."""
        everyone = distributed.group.WORLD
        assert everyone is not None, "the ranks have joined"
        total_2C: Tensor = all_reduce(mean_2C, "sum", everyone)
        return total_2C / self.ranks

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * (count / (count - 1)), share)

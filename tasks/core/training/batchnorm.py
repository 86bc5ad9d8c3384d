"""Batch norm's statistics: computed anew where weights have changed without them, and shared by the ranks.

x_NCHW: normalised float32 images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.data.dataset import Split
from tasks.core.data.inputs import Input
from tasks.core.data.parts import at_once
from tasks.core.distributed.exchange import Gather, gathering
from tasks.core.distributed.world import World
from tasks.core.training.batches import sample

RECALIBRATION_IMAGES = 2000


@torch.inference_mode()
def recalibrate(model: nn.Module, split: Split, given: Input, images: int = RECALIBRATION_IMAGES) -> None:
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
    for x_NCHW, _ in sample(model, split, given, images, at_once(split.sizes_N)):
        model(x_NCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


@contextmanager
def shared_statistics(model: nn.Module, world: World) -> Iterator[None]:
    """While it trains, `model` normalises by the global batch, not by each rank's part of it; alone, it does so
    anyway. Parameters and buffers stay the same tensors."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if world.size == 1 or not norms:
        yield
        return
    with gathering(world) as gather:
        for name, norm in norms.items():
            model.set_submodule(name, SharedBatchNorm(norm, gather))
        try:
            yield
        finally:
            for name, norm in norms.items():
                norm.train(model.training)
                model.set_submodule(name, norm)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of a batch that equally many ranks hold: nn.SyncBatchNorm, which is for GPUs
    alone, on any device."""

    def __init__(self, norm: nn.BatchNorm2d, gather: Gather) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias, self.gather = norm.weight, norm.bias, gather
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """y_NCHW: x_NCHW, normalised by the mean and the variance of all ranks' parts."""
        if not self.training:
            return super().forward(x_NCHW)
        y_NCHW, mean_C, variance_C, ranks = _Normalize.apply(
            x_NCHW, self.weight, self.bias, self.eps, self.gather
        )
        self._remember(mean_C, variance_C, x_NCHW.numel() // len(mean_C) * ranks)
        return cast(Tensor, y_NCHW)

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * (count / (count - 1)), share)


class _Normalize(torch.autograd.Function):
    """Ioffe & Szegedy 2015 (arXiv:1502.03167), by the kernels that normalise on one rank; what the ranks tell
    each other is two numbers a channel there and two back."""

    @staticmethod
    def forward(
        ctx: Any, x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, gather: Gather
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """y_NCHW, mean_C and the variance_C that is not corrected, of all ranks, and how many they are."""
        all_R2C = gather(torch.stack(torch.batch_norm_update_stats(x_NCHW, None, None, 0.0)))
        means_RC, variances_RC = all_R2C.unbind(1)
        mean_C = means_RC.mean(0)
        variance_C = variances_RC.mean(0) + means_RC.var(0, correction=0)
        ctx.save_for_backward(x_NCHW, weight_C, mean_C, variance_C)
        ctx.mark_non_differentiable(mean_C, variance_C)
        ctx.eps, ctx.gather = eps, gather
        y_NCHW = F.batch_norm(x_NCHW, mean_C, variance_C, weight_C, bias_C, eps=eps)
        return y_NCHW, mean_C, variance_C, len(all_R2C)

    @staticmethod
    def backward(ctx: Any, dy_NCHW: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x_NCHW, weight_C and bias_C; those of the last two are of this rank's part alone."""
        x_NCHW, weight_C, mean_C, variance_C = ctx.saved_tensors
        scale_C = torch.rsqrt(variance_C + ctx.eps)
        # As if mean and variance were constants ...
        dx_NCHW, dweight_C, dbias_C = torch.ops.aten.native_batch_norm_backward(
            dy_NCHW, x_NCHW, weight_C, mean_C, variance_C, mean_C, scale_C, False, ctx.eps, [True] * 3
        )
        # ... and what goes through them: a line in x, as both are sums over the global batch.
        all_R2C = ctx.gather(torch.stack([dweight_C, dbias_C]))
        count = x_NCHW.numel() // len(mean_C) * len(all_R2C)
        by_weight_C, by_bias_C = (all_R2C.sum(0) * (scale_C * weight_C / -count)).unbind()
        slope_C = by_weight_C * scale_C
        dx_NCHW.addcmul_(x_NCHW, slope_C[:, None, None]).add_((by_bias_C - slope_C * mean_C)[:, None, None])
        return dx_NCHW, dweight_C, dbias_C, None, None

"""1 x 1 convolutions that step over pixels, as in the shortcuts of a ResNet, trained with few channels on a CPU.

oneDNN computes the gradient of their weights wrongly where it has only AVX2: with fewer channels than a vector has
lanes, in channels_last, it writes past its workspace (oneDNN, issue 6035), and the process ends, or learns something
else each time. Such a convolution is the same one without steps, of the pixels that it reads.

x_NCHW: float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_LANES = 8  # float32 in a vector of AVX2


def is_unsound(weight_OIHW: Tensor, stride: Sequence[int]) -> bool:
    """Whether oneDNN cannot be trusted with this gradient."""
    _, channels, *kernel = weight_OIHW.shape
    return weight_OIHW.is_cpu and kernel == [1, 1] and max(stride) > 1 and channels < _LANES


def pixels_read(x_NCHW: Tensor, stride: Sequence[int]) -> Tensor:
    """What a 1 x 1 convolution without padding reads of `x_NCHW` at this stride."""
    return x_NCHW[:, :, :: stride[0], :: stride[1]]


@contextmanager
def sound_gradients(model: nn.Module) -> Iterator[None]:
    """In the block `model` computes what it did before, and gradients that are right."""
    found = [
        (conv, conv.stride)
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d) and conv.padding == (0, 0) and is_unsound(conv.weight, conv.stride)
    ]
    hooks = []
    for conv, stride in found:
        conv.stride = (1, 1)
        hooks.append(conv.register_forward_pre_hook(_reading(stride)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for conv, stride in found:
            conv.stride = stride


def _reading(stride: Sequence[int]) -> Any:
    return lambda _, inputs: (pixels_read(inputs[0], stride),)

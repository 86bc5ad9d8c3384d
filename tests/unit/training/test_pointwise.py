"""Gradients of strided 1 x 1 convolutions with few channels are right on any CPU, and so are those of the integer graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.quantization.operators import OPERATORS
from tasks.core.training.pointwise import sound_gradients

Compute = Callable[[nn.Conv2d, Tensor], Tensor]


def by_module(conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
    with sound_gradients(nn.Sequential(conv)):
        return conv(x_NCHW)  # type: ignore[no-any-return]


def by_operator(conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
    return OPERATORS["Conv"]([x_NCHW, conv.weight], {"strides": list(conv.stride), "kernel_shape": [1, 1]})


@pytest.mark.parametrize("compute", [by_module, by_operator])
@pytest.mark.parametrize(("channels", "stride"), [(1, 2), (3, 2), (4, 2), (5, 3), (7, 2), (8, 2), (4, 1)])
def test_gradients_are_those_of_double_precision_when_channels_are_few(
    channels: int, stride: int, compute: Compute
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 8, 1, stride, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x_NCHW = torch.randn(32, channels, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    out_NCHW = compute(conv, x_NCHW)
    (out_NCHW**2).sum().backward()  # type: ignore[no-untyped-call]
    exact_x, exact_weight = (tensor.detach().double().requires_grad_() for tensor in (x_NCHW, conv.weight))
    exact = torch.einsum("oi,nihw->nohw", exact_weight[:, :, 0, 0], exact_x[:, :, ::stride, ::stride])
    (exact**2).sum().backward()  # type: ignore[no-untyped-call]
    for found, expected in (
        (out_NCHW, exact),
        (conv.weight.grad, exact_weight.grad),
        (x_NCHW.grad, exact_x.grad),
    ):
        assert found is not None and expected is not None
        assert torch.allclose(
            found.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.detach().abs().max())
        )


def test_network_is_as_it_was_when_its_training_is_over() -> None:
    net = build(Spec("resnet_small", 4, 0.0, (16, 16, 1), 2))
    before = str(net)
    with sound_gradients(net):
        assert str(net) != before, "its first shortcut has four channels"
    assert str(net) == before
    assert not any(module._forward_pre_hooks for module in net.modules())

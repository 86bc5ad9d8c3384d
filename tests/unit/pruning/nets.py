"""Networks for the tests of pruning."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.data.inputs import ImageInput
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.pruning.groups import Groups
from tests.networks import ARCHITECTURES

SHAPE = (28, 28, 1)
GIVEN = ImageInput(SHAPE, [0.3], [0.3])
ARCHS = [
    pytest.param(arch, marks=[] if arch == "resnet_small" else pytest.mark.slow) for arch in ARCHITECTURES
]


def network(arch: str = "resnet_small", width: int = 32) -> nn.Module:
    """Untrained, with batch norm that differs from channel to channel, in eval mode."""
    torch.manual_seed(0)
    model = build(Spec(arch, width, 0.0, SHAPE, 5))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def widths(groups: Groups) -> dict[str, int]:
    return {group.name: group.width for group in groups.prunable}


def reasons(groups: Groups) -> dict[str, str]:
    return {kept.layer: kept.reason for kept in groups.kept_whole}


class Body(nn.Module):
    """A network from layers by name and a function that runs them."""

    def __init__(
        self, forward: Callable[["Body", Tensor], Tensor], **layers: nn.Module | nn.Parameter
    ) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.run(self, x_NCHW)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def concatenating() -> nn.Module:
    """Two convolutions side by side, a norm over both, and a linear layer on the flattened map."""

    def forward(net: Body, x_NCHW: Tensor) -> Tensor:
        both = torch.cat([net.left(x_NCHW), net.right(x_NCHW)], 1)
        return cast(Tensor, net.head(F.relu(net.norm(both)).flatten(1)))

    torch.manual_seed(0)
    layers = {"left": conv(1, 16), "right": conv(1, 24), "norm": nn.BatchNorm2d(40)}
    return Body(forward, **layers, head=nn.Linear(40 * 16, 3)).eval()

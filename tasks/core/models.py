"""The networks: built by name, saved as a description beside the weights, loaded without pickle.

x_NCHW: N images, C channels (1 grey, 3 RGB), H rows, W columns. K: classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.errors import BadInput
from tasks.core.files import read_json, write_json

# Below this side a stem that halves the image twice leaves too few pixels for the rest of the net.
SMALL_SIDE = 64


@dataclass(frozen=True)
class Spec:
    """Everything that `build` needs: architecture, input and output."""

    arch: str
    width: int
    dropout: float
    image_shape: tuple[int, int, int]  # H, W, C
    num_classes: int

    @property
    def small(self) -> bool:
        return min(self.image_shape[:2]) <= SMALL_SIDE


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x_NCHW)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x_NCHW))


class SmallResNet(nn.Module):
    """A ResNet for small images: a stem, three stages of one block, each half as large and twice as
    wide as the one before, mean over the pixels, and a linear layer."""

    def __init__(self, width: int, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            BasicBlock(width, width, 1),
            BasicBlock(width, 2 * width, 2),
            BasicBlock(2 * width, 4 * width, 2),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = self.blocks(self.stem(x_NCHW))
        return cast(Tensor, self.head(self.dropout(y.mean((2, 3)))))


def _small_resnet(spec: Spec) -> nn.Module:
    return SmallResNet(spec.width, spec.image_shape[2], spec.num_classes, spec.dropout)


def _mobilenet_v3_small(spec: Spec) -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    net = mobilenet_v3_small(num_classes=spec.num_classes, dropout=spec.dropout)
    net.features[0][0] = _stem(net.features[0][0], spec)
    return cast(nn.Module, net)


def _efficientnet_b0(spec: Spec) -> nn.Module:
    from torchvision.models import efficientnet_b0

    net = efficientnet_b0(num_classes=spec.num_classes, dropout=spec.dropout)
    net.features[0][0] = _stem(net.features[0][0], spec)
    return cast(nn.Module, net)


def _mobilenet_v2(spec: Spec) -> nn.Module:
    from torchvision.models import mobilenet_v2

    net = mobilenet_v2(num_classes=spec.num_classes, dropout=spec.dropout)
    net.features[0][0] = _stem(net.features[0][0], spec)
    # Its own forward pools by a function, which exports as a dozen nodes.
    parts = {
        "features": net.features,
        "pool": GlobalMean(),
        "flat": nn.Flatten(),
        "classifier": net.classifier,
    }
    return nn.Sequential(OrderedDict(parts))


def _resnet18(spec: Spec) -> nn.Module:
    from torchvision.models import resnet18

    net = resnet18(num_classes=spec.num_classes)
    net.fc = nn.Sequential(nn.Dropout(spec.dropout), net.fc)
    if spec.small:
        net.conv1 = nn.Conv2d(spec.image_shape[2], 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    else:
        net.conv1 = _stem(net.conv1, spec)
    return cast(nn.Module, net)


class GlobalMean(nn.Module):
    """The mean over all pixels. AdaptiveAvgPool2d(1) computes the same, but exports as a dozen nodes."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.mean((2, 3), keepdim=True)


def _pooled_by_mean(net: nn.Module) -> nn.Module:
    for name, child in net.named_modules():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            net.set_submodule(name, GlobalMean())
    return net


def _stem(conv: nn.Conv2d, spec: Spec) -> nn.Conv2d:
    """`conv` for the images' channels; on small images it keeps their resolution."""
    return nn.Conv2d(
        spec.image_shape[2],
        conv.out_channels,
        cast(tuple[int, int], conv.kernel_size),
        1 if spec.small else cast(tuple[int, int], conv.stride),
        cast(tuple[int, int], conv.padding),
        bias=conv.bias is not None,
    )


ARCHITECTURES: dict[str, Callable[[Spec], nn.Module]] = {
    "resnet_small": _small_resnet,
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3_small": _mobilenet_v3_small,
    "efficientnet_b0": _efficientnet_b0,
    "resnet18": _resnet18,
}


def build(spec: Spec) -> nn.Module:
    """An untrained network in channels_last, x_NCHW float32 (normalised) -> logits_NK."""
    return _pooled_by_mean(ARCHITECTURES[spec.arch](spec)).to(memory_format=torch.channels_last)


class Removed(nn.Identity):
    """What stands where a block was: what went into it comes out."""


def remove_blocks(model: nn.Module, blocks: Collection[str]) -> None:
    """Take whole blocks, named as submodules, out of `model`, in place; a block inside another goes with it."""
    for block in blocks:
        if not any(block.startswith(f"{other}.") for other in blocks):
            model.set_submodule(block, Removed())


def removed_blocks(model: nn.Module) -> list[str]:
    """The blocks that `remove_blocks` took."""
    return [name for name, module in model.named_modules() if isinstance(module, Removed)]


def parameter_count(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(p.numel() for p in model.parameters())


def sparsity(model: nn.Module) -> float:
    """The share of the weights of convolutions and linear layers that are zero."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return zeros / sum(layer.weight.numel() for layer in layers)


def mac_count(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image through convolutions and linear layers (FLOPs / 2)."""
    from torch.utils.flop_counter import FlopCounterMode

    height, width, channels = image_shape
    device = next(model.parameters()).device
    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, channels, height, width, device=device))
    model.train(training)
    return int(counter.get_total_flops()) // 2


# ---- saving: model.json says how wide every layer is and which blocks are gone, model.safetensors holds the numbers

# The layers whose widths a model may have changed, and what says how wide each is.
WIDTHS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.BatchNorm2d: ("num_features",),
}


def save_model(model: nn.Module, spec: Spec, folder: Path) -> None:
    """Write model.json and model.safetensors to `folder`."""
    layers = {
        name: {key: getattr(module, key) for key in WIDTHS[type(module)]}
        for name, module in model.named_modules()
        if type(module) in WIDTHS
    }
    write_json(
        folder / "model.json", {**asdict(spec), "layers": layers, "removed_blocks": removed_blocks(model)}
    )
    # Contiguous: the bytes must not depend on the memory format that training liked best.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")


def load_model(folder: Path) -> tuple[nn.Module, Spec]:
    """The network that `save_model` wrote, whatever pruning made of it, in eval mode.

    Raises:
        BadInput: the weights do not fit the description.
    """
    content: dict[str, Any] = read_json(folder / "model.json")
    layers, blocks = content.pop("layers"), content.pop("removed_blocks")
    content["image_shape"] = tuple(content["image_shape"])
    spec = Spec(**content)
    with torch.device("meta"):
        model = build(spec)
        remove_blocks(model, blocks)
        for name, shape in layers.items():
            parent, _, child = name.rpartition(".")
            layer = model.get_submodule(name)
            setattr(model.get_submodule(parent), child, _resized(layer, shape))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True, assign=True)
    except RuntimeError as error:
        raise BadInput(
            f"{folder}: the weights do not fit model.json: {str(error).splitlines()[-1].strip()}"
        ) from error
    return model.to(memory_format=torch.channels_last).eval(), spec


def _resized(layer: nn.Module, shape: dict[str, Any]) -> nn.Module:
    """A layer like `layer`, with the widths of `shape`."""
    if isinstance(layer, nn.Conv2d):
        options = {k: getattr(layer, k) for k in ("kernel_size", "stride", "padding", "dilation")}
        return nn.Conv2d(**shape, **options, bias=layer.bias is not None)
    if isinstance(layer, nn.Linear):
        return nn.Linear(**shape, bias=layer.bias is not None)
    assert isinstance(layer, nn.BatchNorm2d)
    return nn.BatchNorm2d(**shape, eps=layer.eps, momentum=layer.momentum)

"""A network and what is known of it: counted, saved as a description beside the weights, loaded without pickle."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json, write_json
from tasks.core.data.inputs import Input
from tasks.core.models.architectures import unchecked
from tasks.core.models.spec import Spec
from tasks.core.models.tables import Table


class Removed(nn.Identity):
    """What stands where a block was: what went into it comes out."""


class Rectified(nn.ReLU):
    """What stands where a smooth activation was."""


SMOOTH = (nn.SiLU, nn.Hardswish, nn.GELU, nn.Mish)


def smooth_activations(model: nn.Module) -> list[str]:
    """The activations that `rectify` replaces."""
    modules = model.named_modules(remove_duplicate=False)
    return [name for name, module in modules if isinstance(module, SMOOTH)]


def rectify(model: nn.Module) -> None:
    """Let ReLU stand for every smooth activation, in place.

    In an int8 graph a convolution does ReLU for nothing, by the range of what it puts out; a smooth activation is two
    or three operators more. They differ by 0.3 at most, and only near zero: training makes up for it.
    """
    for name in smooth_activations(model):
        model.set_submodule(name, Rectified())
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.inplace = False  # the gradient of ReLU needs what it put out


def is_rectified(model: nn.Module) -> bool:
    """Whether ReLU stands where the network had smooth activations."""
    return any(isinstance(module, Rectified) for module in model.modules())


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


def mac_count(model: nn.Module, given: Input) -> int:
    """Multiply-accumulates of one example through convolutions and linear layers (FLOPs / 2)."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.from_numpy(given.example()).to(device))
    model.train(training)
    return int(counter.get_total_flops()) // 2


# ---- saving: model.json says how wide every layer is and which blocks are gone, model.safetensors holds the numbers

# The layers whose widths a model may have changed, and what says how wide each is.
WIDTHS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.BatchNorm2d: ("num_features",),
    Table: ("num_embeddings", "embedding_dim"),
}


def save_model(model: nn.Module, spec: Spec, folder: Path) -> None:
    """Write model.json and model.safetensors to `folder`."""
    layers = {
        name: {key: getattr(module, key) for key in WIDTHS[type(module)]}
        for name, module in model.named_modules()
        if type(module) in WIDTHS
    }
    changed = {"removed_blocks": removed_blocks(model), "rectified": is_rectified(model)}
    write_json(folder / "model.json", {**asdict(spec), "layers": layers, **changed})
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
    rectified = content.pop("rectified", False)  # a file of an earlier version does not say
    if content["image_shape"] is not None:
        content["image_shape"] = tuple(content["image_shape"])
    spec = Spec(**content)
    with torch.device("meta"):
        model = unchecked(spec)
        remove_blocks(model, blocks)
        if rectified:
            rectify(model)
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
    if isinstance(layer, Table):
        return Table(**shape)
    assert isinstance(layer, nn.BatchNorm2d)
    return nn.BatchNorm2d(**shape, eps=layer.eps, momentum=layer.momentum)

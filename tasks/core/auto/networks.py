"""The networks that a recipe may choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.core.auto.budget import PASSES, Cost, passes

TORCHVISIONS = 48  # pixels: on smaller images torchvision's networks have hardly a map left to look at


@dataclass(frozen=True)
class Network:
    """`width` is None where the network has the one that its authors gave it."""

    arch: str
    width: int | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Keys of section `train`."""
        return {"arch": self.arch} | ({"width": self.width} if self.width else {})

    def __str__(self) -> str:
        return self.arch + (f" of width {self.width}" if self.width else "")


OWN = [Network(arch, width) for width in (16, 32, 64) for arch in ("convnet_small", "resnet_small")]
EFFICIENT = [Network("mobilenet_v3_small"), Network("efficientnet_b0")]


def portfolio(image_shape: tuple[int, int, int]) -> list[Network]:
    """Those that suit images of `image_shape` (H, W, C)."""
    return OWN + (EFFICIENT if min(image_shape[:2]) >= TORCHVISIONS else [])


def affordable(cost: Cost, work: float, images: int) -> bool:
    """Whether `work` pays for more passes over so many images than the least that teach a network anything."""
    return passes(work, cost, images) >= 2 * PASSES[0]

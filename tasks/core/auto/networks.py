"""The networks that a recipe may choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.core.auto.budget import SMALLEST_BATCH, Cost

LEAST_STEPS = 500
SMALLEST = 24  # pixels of the shorter side
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


def portfolio(side: int) -> list[Network]:
    """Those that suit images whose shorter side has so many pixels."""
    return OWN + (EFFICIENT if side >= TORCHVISIONS else [])


def downscales(image_shape: tuple[int, int, int]) -> list[int]:
    """How far images may be reduced: by powers of two, as long as SMALLEST pixels are left."""
    side = min(image_shape[:2])
    return [factor for factor in (1, 2, 4, 8, 16) if factor == 1 or side // factor >= SMALLEST]


def affordable(cost: Cost, work: float) -> bool:
    """Whether `work` pays for as many steps as a network needs to learn anything."""
    return work >= LEAST_STEPS * cost.of_step(SMALLEST_BATCH)

"""What a network is built from."""

from __future__ import annotations

from dataclasses import dataclass

# Below this side a stem that halves the image twice leaves too few pixels for the rest of the net.
SMALL_SIDE = 64


@dataclass(frozen=True)
class Spec:
    """A network: everything that `build` needs (with `downscale` above 1 it sees the mean of so many by so many pixels as
    one), and how the images are drawn that it learns from (`Split.sampling`)."""

    arch: str
    width: int
    dropout: float
    image_shape: tuple[int, int, int]  # H, W, C
    num_classes: int
    stochastic_depth: float | None = None
    batch_norm: bool = True
    sampling: str = "uniform"
    downscale: int = 1

    @property
    def small(self) -> bool:
        return min(self.image_shape[:2]) <= SMALL_SIDE

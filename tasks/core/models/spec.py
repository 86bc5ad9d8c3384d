"""What a network is built from."""

from __future__ import annotations

from dataclasses import dataclass

# Below this side a stem that halves the image twice leaves too few pixels for the rest of the net.
SMALL_SIDE = 64


@dataclass(frozen=True)
class Spec:
    """A network: everything that `build` needs. Of images it has their shape (with `downscale` above 1 it sees the mean of so many by so many pixels as
    one); of texts, which have none, how many `rows` its table of words has. And how the examples are drawn that it learns from
    (`Split.sampling`)."""

    arch: str
    width: int
    dropout: float
    image_shape: tuple[int, int, int] | None  # H, W, C
    num_classes: int
    stochastic_depth: float | None = None
    batch_norm: bool = True
    sampling: str = "uniform"
    downscale: int = 1
    rows: int = 0

    @property
    def small(self) -> bool:
        return min(self.pixels[:2]) <= SMALL_SIDE

    @property
    def pixels(self) -> tuple[int, int, int]:
        """The shape of the images, of a network that takes some."""
        assert self.image_shape is not None
        return self.image_shape

"""What a network takes in place of an example, and how an example becomes that.

N: examples; images are H high, W wide and have C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextInput:
    """Texts as numbers of their tokens, of which the `longest` first are seen; half of the texts have `typical` or more.

    `tokenizer` is what makes the tokens, see `bpe`; None: the rule of `tokens`, which a model's file follows itself.
    """

    longest: int
    typical: int
    tokenizer: str | None = field(default=None, repr=False)

    def example(self, count: int = 1) -> npt.NDArray[np.int64]:
        """Something that a network computes with: texts of a typical length, of words that nobody has seen."""
        return np.ones((count, self.typical), np.int64)

    def tensor(self, tokens_NL: Tensor) -> Tensor:
        """What a network takes: the tokens as they are."""
        return tokens_NL


@dataclass(frozen=True)
class ImageInput:
    """Images of one `shape` (H, W, C), normalised with one `zero`, a grey level, and one `scale` for all channels.

    `channel_mean` and `channel_std` are of the training images, one number a channel, with pixels in 0..1. Because zero
    is a whole grey level and no channel has its own, an image is already what quantization calls a uint8 tensor with a
    zero point and a scale: an int8 graph takes it as it is, and a float one needs one operator. Batch norm, which
    follows, sees to the channels' differences. Without any variation scale is 0.
    """

    shape: tuple[int, int, int]
    channel_mean: list[float]
    channel_std: list[float]

    @property
    def zero(self) -> int:
        """The grey level that becomes 0."""
        return round(255 * sum(self.channel_mean) / len(self.channel_mean))

    @property
    def scale(self) -> float:
        """What a grey level more is worth."""
        pairs = zip(self.channel_mean, self.channel_std, strict=True)
        variance = sum(s * s + (m - self.zero / 255) ** 2 for m, s in pairs) / len(self.channel_mean)
        return 1 / (255 * math.sqrt(variance)) if variance else 0.0

    def example(self, count: int = 1) -> npt.NDArray[np.float32]:
        """Something that a network computes with: x_NCHW of black images."""
        height, width, channels = self.shape
        return np.zeros((count, channels, height, width), np.float32)

    def tensor(self, x_NHWC: Tensor) -> Tensor:
        """uint8 x_NHWC -> float32 x_NCHW (channels_last), what a network takes."""
        return (x_NHWC.permute(0, 3, 1, 2).float() - self.zero) * self.scale


Input = ImageInput | TextInput

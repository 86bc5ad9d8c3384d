"""Images and policies for the tests of augmentation."""

from typing import Any

import torch
from torch import Tensor

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.data.inputs import ImageInput

N, SIDE, CLASSES = 16, 20, 3
OPERATIONS: dict[str, dict[str, float]] = {
    "flip_horizontal": {"probability": 0.5},
    "flip_vertical": {"probability": 0.5},
    "crop": {"pixels": 3},
    "affine": {"rotate": 30.0, "scale": 0.2, "translate": 0.1},
    "brightness": {"range": 0.5},
    "contrast": {"range": 0.5},
    "saturation": {"range": 0.5},
    "hue": {"range": 0.2},
    "permute_channels": {"on": 1.0},
    "randaugment": {"operations": 3, "magnitude": 0.5},
    "trivialaugment": {"magnitude": 1.0},
    "erase": {"probability": 1.0},
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
}
COLOUR_ONLY = ("saturation", "hue", "permute_channels")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def policy(channels: int, operations: dict[str, dict[str, float]]) -> dict[str, Any]:
    given = of_channels(channels)
    return {
        "image_shape": given.shape,
        "channel_mean": given.channel_mean,
        "channel_std": given.channel_std,
        "operations": operations,
    }


def suiting(channels: int) -> dict[str, dict[str, float]]:
    """No colour for grey images: the policy never asks for it."""
    return {k: v for k, v in OPERATIONS.items() if channels == 3 or k not in COLOUR_ONLY}


def of_channels(channels: int) -> ImageInput:
    return ImageInput((SIDE, SIDE, channels), MEAN[:channels], STD[:channels])


def images(channels: int, n: int = N, height: int = SIDE, width: int = SIDE) -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, height, width, channels), dtype=torch.uint8, generator=draws)


def apply(
    x_NHWC: Tensor, operations: dict[str, dict[str, float]], strength: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    augment = BatchAugment(policy(x_NHWC.shape[3], operations), strength)
    labels_N = torch.arange(len(x_NHWC)) % CLASSES
    return augment(x_NHWC, labels_N, torch.Generator().manual_seed(seed), CLASSES)


def plain(x_NHWC: Tensor) -> Tensor:
    channels = x_NHWC.shape[3]
    return of_channels(channels).tensor(x_NHWC)


def levels(x_NHWC: Tensor) -> Tensor:
    return x_NHWC.permute(0, 3, 1, 2).float().contiguous()

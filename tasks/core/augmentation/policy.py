"""Which augmentations suit the images: section `augment` of params.yaml, resolved for a data set."""

from __future__ import annotations

from typing import Any

from tasks.core.common.errors import BadInput
from tasks.core.config.params import AugmentParams

COLOUR_ONLY = ("saturation", "hue", "permute_channels")


def resolve_policy(
    params: AugmentParams,
    image_shape: tuple[int, int, int],
    channel_mean: list[float],
    channel_std: list[float],
) -> dict[str, Any]:
    """What BatchAugment applies: the operations that are on and suit images of `image_shape` (H, W, C).

    Ranges are those at strength 1, to either side. What was asked for but has no effect on such
    images stands in `left_out`, with the reason.

    Raises:
        BadInput: the crop is larger than a quarter of the shorter side.
    """
    height, width, channels = image_shape
    most = min(height, width) // 4
    if params.crop > most:
        raise BadInput(
            f"augment.crop ({params.crop}) is more than a quarter of the side of images of "
            f"{height} x {width} pixels: set at most {most}"
        )
    asked = _operations(params)
    left_out = {name: "the images are grey" for name in COLOUR_ONLY if name in asked and channels == 1}
    return {
        "image_shape": list(image_shape),
        "channel_mean": channel_mean,
        "channel_std": channel_std,
        "operations": {name: ranges for name, ranges in asked.items() if name not in left_out},
        "left_out": left_out,
        "seed": params.seed,
    }


def _operations(params: AugmentParams) -> dict[str, dict[str, float]]:
    """Every operation that is on, in the order in which the sheet shows them."""
    every: dict[str, dict[str, float]] = {
        "flip_horizontal": {"probability": 0.5 * params.flip_horizontal},
        "flip_vertical": {"probability": 0.5 * params.flip_vertical},
        "crop": {"pixels": params.crop},
        "affine": {"rotate": params.rotate, "scale": params.scale, "translate": params.translate},
        "brightness": {"range": params.brightness},
        "contrast": {"range": params.contrast},
        "saturation": {"range": params.saturation},
        "hue": {"range": params.hue},
        "permute_channels": {"on": float(params.permute_channels)},
        "randaugment": {
            "operations": params.randaugment,
            "magnitude": params.randaugment_magnitude * (params.randaugment > 0),
        },
        "trivialaugment": {"magnitude": float(params.trivialaugment)},
        "erase": {"probability": params.erase},
        "mixup": {"alpha": params.mixup},
        "cutmix": {"alpha": params.cutmix},
    }
    return {name: ranges for name, ranges in every.items() if any(ranges.values())}

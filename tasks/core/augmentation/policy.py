"""Which augmentations suit the data: section `augment` of params.yaml, resolved for a data set."""

from __future__ import annotations

from typing import Any

from tasks.core.augmentation.synonyms import synonyms_of
from tasks.core.common.errors import BadInput
from tasks.core.config.params import AugmentParams
from tasks.core.data.dataset import Dataset
from tasks.core.data.encoders import encoder_of
from tasks.core.data.inputs import ImageInput, TextInput
from tasks.core.data.texts import Texts

COLOUR_ONLY = ("saturation", "hue", "permute_channels")
SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u061f", "\u0964")
OF_WORDS = ("synonyms", "insert")
OF_TEXTS = ("synonyms", "insert", "swap", "delete", "shuffle_sentences", "token_dropout")


def resolve_policy(params: AugmentParams, dataset: Dataset) -> dict[str, Any]:
    """What `augment_of` applies: the operations that are on and suit the examples for training.

    Raises:
        BadInput: a range does not suit them, or a source of synonyms is missing.
    """
    if isinstance(dataset.input, TextInput):
        return _of_texts(params, dataset.input, dataset.train.raw_N)
    return of_images(params, dataset.input)


def _of_texts(params: AugmentParams, given: TextInput, texts: Any) -> dict[str, Any]:
    assert isinstance(texts, Texts)
    shares = {name: float(getattr(params, name)) for name in OF_TEXTS}
    of_words = [name for name in OF_WORDS if shares[name] and given.tokenizer is not None]
    if of_words:
        raise BadInput(
            f"augment.{of_words[0]}: byte pairs have no synonyms: set it to 0, or ingest.tokens: words"
        )
    return {
        "longest": given.longest,
        "typical": given.typical,
        "sentence_ends": encoder_of(given).ending_with(SENTENCE_ENDS),
        "operations": {name: {"share": share} for name, share in shares.items() if share},
        "synonyms": synonyms_of(texts) if params.synonyms or params.insert else {},
        "left_out": {},
        "seed": params.seed,
    }


def of_images(params: AugmentParams, given: ImageInput) -> dict[str, Any]:
    """What BatchAugment applies: the operations that are on and suit such images.

    Ranges are those at strength 1, to either side. What was asked for but has no effect on such
    images stands in `left_out`, with the reason.

    Raises:
        BadInput: the crop is larger than a quarter of the shorter side.
    """
    height, width, channels = given.shape
    most = min(height, width) // 4
    if params.crop > most:
        raise BadInput(
            f"augment.crop ({params.crop}) is more than a quarter of the side of images of "
            f"{height} x {width} pixels: set at most {most}"
        )
    asked = _operations(params)
    left_out = {name: "the images are grey" for name in COLOUR_ONLY if name in asked and channels == 1}
    return {
        "image_shape": list(given.shape),
        "channel_mean": given.channel_mean,
        "channel_std": given.channel_std,
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

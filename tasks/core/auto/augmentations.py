"""The augmentations that are tried, each by itself on top of those that have helped before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tasks.core.augmentation import synonyms
from tasks.core.data.inputs import Input, TextInput


@dataclass(frozen=True)
class Candidate:
    """Keys of section `augment`, and what is tried for them; `needs_colour`: not on grey images; `needs_wordnet`: where
    that lies."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    needs_colour: bool = False
    needs_wordnet: bool = False


IMAGES_OFF: dict[str, Any] = {
    "flip_horizontal": False,
    "flip_vertical": False,
    "rotate": 0.0,
    "scale": 0.0,
    "translate": 0.0,
    "crop": 0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "permute_channels": False,
    "randaugment": 0,
    "trivialaugment": False,
    "erase": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
TEXTS_OFF: dict[str, Any] = {
    "synonyms": 0.0,
    "insert": 0.0,
    "swap": 0.0,
    "delete": 0.0,
    "shuffle_sentences": 0.0,
    "token_dropout": 0.0,
}
OFF = IMAGES_OFF | TEXTS_OFF


OF_TEXTS = [
    Candidate("unknown words", {"token_dropout": 0.1}),
    Candidate("deletion", {"delete": 0.1}),
    Candidate("synonyms", {"synonyms": 0.1}, needs_wordnet=True),
    Candidate("swaps", {"swap": 0.1}),
    Candidate("sentences in another order", {"shuffle_sentences": 0.5}),
    Candidate("insertion of synonyms", {"insert": 0.1}, needs_wordnet=True),
]


def candidates(given: Input) -> list[Candidate]:
    """Those for such examples, in the order in which they are tried."""
    if isinstance(given, TextInput):
        wordnet = given.tokenizer is None and synonyms.folder()
        return [candidate for candidate in OF_TEXTS if wordnet or not candidate.needs_wordnet]
    height, width, channels = given.shape
    every = [
        Candidate("shifts", {"crop": max(1, round(min(height, width) / 10))}),
        Candidate("flips, left and right", {"flip_horizontal": True}),
        Candidate("rotation and zoom", {"rotate": 15.0, "scale": 0.15}),
        Candidate("permuted colours", {"permute_channels": True}, needs_colour=True),
        Candidate("brightness and contrast", {"brightness": 0.3, "contrast": 0.3}),
        Candidate("hue and saturation", {"hue": 0.1, "saturation": 0.4}, needs_colour=True),
        Candidate("erasing", {"erase": 0.5}),
        Candidate("CutMix and MixUp", {"cutmix": 1.0, "mixup": 0.4}),
        Candidate("flips, top and bottom", {"flip_vertical": True}),
    ]
    return [candidate for candidate in every if channels > 1 or not candidate.needs_colour]

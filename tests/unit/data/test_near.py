"""Leaks that equal pixels do not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tasks.core.data import near
from tasks.core.data.near import find_near
from tasks.core.data.sources import SPLITS, TEST, VAL

Pixels = NDArray[np.uint8]


def picture(rng: np.random.Generator, height: int = 40, width: int = 48) -> Pixels:
    """Something with edges and areas, as photographs have."""
    noise = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


def packed(folder: Path, **splits: tuple[list[Pixels], list[int]]) -> Path:
    for name in SPLITS:
        images, labels = splits.get(name, ([], []))
        shape = (0, *next(iter(splits.values()))[0][0].shape)
        np.save(folder / f"{name}_images.npy", np.stack(images) if images else np.zeros(shape, np.uint8))
        np.save(folder / f"{name}_labels.npy", np.array(labels, np.int64))
    return folder


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker": lambda image: image.point(lambda value: int(value * 0.8)),
    "smaller": lambda image: image.resize((24, 20)).resize((48, 40), Image.Resampling.BILINEAR),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("block", [1 << 22, 60])  # all at once, and a few at a time
def test_changed_copies_are_found_when_they_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, block: int
) -> None:
    monkeypatch.setattr(near, "_BLOCK", block)
    rng = np.random.default_rng(0)
    train, val, test = ([picture(rng) for _ in range(count)] for count in (60, 20, 20))
    copies = [np.asarray(CHANGES[change](Image.fromarray(train[row]))) for row in (7, 33, 59)]
    val[4], test[0], test[19] = copies
    labels = [row % 2 for row in range(60)]
    held = ([row % 2 for row in range(20)], [row % 2 for row in range(20)])
    held[0][4], held[1][0], held[1][19] = labels[7], labels[33], labels[59]
    found = find_near(packed(tmp_path, train=(train, labels), val=(val, held[0]), test=(test, held[1])), 0)
    assert {pair[:3] for pair in found.pairs} == {(VAL, 4, 7), (TEST, 0, 33), (TEST, 19, 59)}
    assert (found.count(VAL), found.count(TEST), found.looked_at, found.false_alarms) == (1, 2, 40, 0.0)


def test_threshold_rises_and_the_rate_is_stated_when_classes_look_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = picture(rng).astype(int)
    images = [np.clip(base + rng.normal(0, 1, base.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    labels = [row % 2 for row in range(20)]
    found = find_near(packed(tmp_path, train=(images[:20], labels), test=(images[20:], labels)), 0)
    assert found.threshold == near.THRESHOLDS[-1]
    assert found.false_alarms == 1.0


def test_images_of_one_grey_are_near_to_nothing_when_compared(tmp_path: Path) -> None:
    plain = [np.full((8, 8, 1), value, np.uint8) for value in (10, 20, 30, 40)]
    found = find_near(packed(tmp_path, train=(plain[:2], [0, 1]), test=(plain[2:], [0, 1])), 0)
    assert (found.pairs, found.false_alarms) == ([], 0.0)


def test_fewer_images_are_looked_at_when_all_would_take_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "WORK", 30 * 12 * near.COARSE**2)
    rng = np.random.default_rng(0)
    images, labels = [picture(rng) for _ in range(60)], [0, 1] * 30
    folder = packed(tmp_path, train=(images[:30], labels[:30]), test=(images[30:], labels[30:]))
    assert find_near(folder, 0).looked_at == 12

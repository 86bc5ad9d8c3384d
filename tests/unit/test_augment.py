"""The policy holds what suits the data, and the sheet shows it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.augment import GAP, LABEL_WIDTH, TILE, augment
from tasks.core.augmentation.policy import of_images
from tasks.core.common.errors import BadInput
from tasks.core.config.params import AugmentParams
from tasks.core.data.inputs import ImageInput

EVERYTHING = {
    "flip_vertical": True,
    "rotate": 10.0,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.2,
    "hue": 0.1,
    "randaugment": 2,
    "trivialaugment": True,
    "erase": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}
GREY, RGB = (28, 28, 1), (32, 24, 3)


def resolve(shape: tuple[int, int, int], **values: Any) -> dict[str, Any]:
    return of_images(AugmentParams(**values), ImageInput(shape, [0.5] * shape[2], [0.2] * shape[2]))


def dataset(folder: Path, shape: tuple[int, int, int], n: int = 30) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        np.save(folder / f"{split}_images.npy", rng.integers(0, 256, (n, *shape), dtype=np.uint8))
        np.save(folder / f"{split}_labels.npy", np.arange(n, dtype=np.int64) % 3)
    about = {
        "classes": ["a", "b", "c"],
        "image_shape": shape,
        "channel_mean": [0.5] * shape[2],
        "channel_std": [0.29] * shape[2],
        "digest": "0",
    }
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def run(
    tmp_path: Path, shape: tuple[int, int, int], name: str = "out", tried: Sequence[Any] = (), **values: Any
) -> Path:
    data = tmp_path / "data"
    out = tmp_path / name
    out.mkdir()
    recipe = tmp_path / "augmentations.json"
    recipe.write_text(json.dumps(list(tried)), encoding="utf-8")
    augment(AugmentParams(**values), data if data.exists() else dataset(data, shape), recipe, out)
    return out


def test_policy_is_flip_and_crop_when_nothing_else_is_asked_for() -> None:
    policy = resolve(GREY)
    assert policy["operations"] == {"flip_horizontal": {"probability": 0.5}, "crop": {"pixels": 2}}
    assert policy["left_out"] == {}
    assert policy["image_shape"] == [28, 28, 1]


def test_policy_leaves_colour_out_when_the_images_are_grey() -> None:
    policy = resolve(GREY, **EVERYTHING)
    assert policy["left_out"] == {"hue": "the images are grey", "saturation": "the images are grey"}
    assert policy["operations"]["brightness"] == {"range": 0.3}
    assert "contrast" in policy["operations"]


def test_policy_leaves_nothing_out_when_the_images_are_coloured() -> None:
    policy = resolve(RGB, **EVERYTHING)
    assert policy["left_out"] == {}
    assert policy["operations"]["hue"] == {"range": 0.1}
    assert policy["operations"]["affine"] == {"rotate": 10.0, "scale": 0.0, "translate": 0.0}


def test_policy_holds_randaugment_with_its_magnitude_when_it_is_on() -> None:
    policy = resolve(GREY, randaugment=3, randaugment_magnitude=0.4, trivialaugment=True)
    assert policy["operations"]["randaugment"] == {"operations": 3, "magnitude": 0.4}
    assert policy["operations"]["trivialaugment"] == {"magnitude": 1.0}
    assert not {"randaugment", "trivialaugment"} & set(resolve(GREY)["operations"])


def test_policy_is_empty_when_everything_is_off() -> None:
    policy = resolve(GREY, flip_horizontal=False, crop=0)
    assert (policy["operations"], policy["left_out"]) == ({}, {})


@given(height=st.integers(8, 60), width=st.integers(8, 60), crop=st.integers(0, 20))
def test_policy_is_refused_in_one_line_when_the_crop_is_more_than_a_quarter(
    height: int, width: int, crop: int
) -> None:
    if crop * 4 <= min(height, width):
        resolve((height, width, 1), crop=crop)
        return
    with pytest.raises(BadInput, match=rf"augment\.crop \({crop}\).*{height} x {width}.*at most \d+$"):
        resolve((height, width, 1), crop=crop)


@pytest.mark.parametrize("shape", [GREY, RGB, (200, 90, 3)])
def test_augment_writes_policy_metrics_and_a_sheet_with_a_row_an_operation_when_run(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    out = run(tmp_path, shape, **EVERYTHING)
    assert {path.name for path in out.iterdir()} == {"policy.json", "contact_sheet.png", "metrics.json"}
    policy = json.loads((out / "policy.json").read_text(encoding="utf-8"))
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    left_out = 2 if shape[2] == 1 else 0
    assert metrics == {"operations": 13 - left_out, "left_out": left_out}
    assert len(policy["operations"]) == metrics["operations"]
    with Image.open(out / "contact_sheet.png") as sheet:
        width, height = sheet.size
    rows = metrics["operations"] + 2
    assert 500 < width < 1300, "eight pictures, to be read on a page"
    assert height / rows > 80, "one row an operation, the original, and all together"


@pytest.mark.parametrize("shape", [GREY, RGB])
def test_sheet_shows_pixels_unchanged_but_for_the_operation_when_it_is_a_flip(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    out = run(tmp_path, shape, crop=0)
    height, width = (side * round(TILE / max(shape)) for side in shape[:2])
    with Image.open(out / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet)
    flipped = 0
    for left in range(LABEL_WIDTH, pixels.shape[1], width + GAP):
        before, after = (pixels[top : top + height, left : left + width] for top in (GAP, GAP + height + GAP))
        assert before.std() > 50, "noise, as in the data"
        if not np.array_equal(after, before):
            assert np.array_equal(after, before[:, ::-1])
            flipped += 1
    assert 0 < flipped < 8
    first = np.load(tmp_path / "data" / "train_images.npy")[0]
    factor = width // shape[1]
    shown = pixels[GAP : GAP + height : factor, LABEL_WIDTH : LABEL_WIDTH + width : factor]
    assert np.array_equal(shown, np.broadcast_to(first, shown.shape))


def test_sheet_shows_what_was_tried_in_vain_when_the_recipe_has_tried_it(tmp_path: Path) -> None:
    names = {"used": True, "refused": False}
    tried = [
        {
            "name": name,
            "values": {"crop": 0, "flip_horizontal": True},
            "used": used,
            "gave": "loss +0.1 ± 0.01",
        }
        for name, used in names.items()
    ]
    out = run(tmp_path, GREY, tried=tried, crop=0, flip_horizontal=False)
    with Image.open(out / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet)
    pitch = GREY[0] * round(TILE / GREY[0]) + GAP
    assert (len(pixels) - GAP) // pitch == 2, "the original, and what did not help"
    before, after = pixels[GAP:pitch, LABEL_WIDTH:], pixels[GAP + pitch : 2 * pitch, LABEL_WIDTH:]
    assert not np.array_equal(before, after)
    assert np.array_equal(np.sort(before, axis=None), np.sort(after, axis=None)), "mirrored, nothing else"


@pytest.mark.slow
def test_augment_writes_the_same_bytes_when_run_again(tmp_path: Path) -> None:
    first, second = run(tmp_path, RGB, "one", **EVERYTHING), run(tmp_path, RGB, "two", **EVERYTHING)
    other = run(tmp_path, RGB, "three", seed=1, **EVERYTHING)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert (first / "contact_sheet.png").read_bytes() != (other / "contact_sheet.png").read_bytes()


def test_augment_works_when_there_are_fewer_images_than_columns(tmp_path: Path) -> None:
    dataset(tmp_path / "data", (8, 8, 1), n=3)
    assert (run(tmp_path, (8, 8, 1), **EVERYTHING) / "contact_sheet.png").stat().st_size > 0

"""Resolve the augmentation policy: which operations suit these data, with their ranges.

The stage changes no image: training applies the policy to whole batches, on its own device
(tasks/core/augmentation/batch.py). What it leaves behind is the policy and a picture of what it does.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.policy import resolve_policy
from tasks.core.augmentation.shown import changed_texts
from tasks.core.common.files import read_json, write_json
from tasks.core.config.cli import main
from tasks.core.config.params import AugmentParams
from tasks.core.data.dataset import Split, open_dataset
from tasks.core.data.inputs import TextInput

COLUMNS = 8
TILE = 112  # pixels, about the longer side of a picture on the sheet
GAP, LINE = 6, 17
LABEL_WIDTH, LABEL_LETTERS = 140, 16
INK, FAINT, PAPER = "#1b1b1b", "#6b6b6b", "#ffffff"

Refused = tuple[str, str, dict[str, Any]]  # name, what it gave, its policy
Row = tuple[str, list[str], npt.NDArray[np.uint8]]  # label, notes, images_NHWC


def augment(params: AugmentParams, data: Path, tried: Path, out: Path) -> None:
    """Write policy.json, contact_sheet.png, of texts examples.json instead, and metrics.json.

    Args:
        data: the ingested data set.
        tried: augmentations.json of recipe: those that did not help are shown, too.

    Raises:
        BadInput: a range does not fit the images.
    """
    dataset = open_dataset(data)
    policy = resolve_policy(params, dataset)
    write_json(out / "policy.json", policy)
    refused: list[Refused] = [
        (row["name"], row["gave"], resolve_policy(AugmentParams(**row["values"]), dataset))
        for row in read_json(tried)
        if not row["used"]
    ]
    if isinstance(dataset.input, TextInput):
        write_json(out / "examples.json", changed_texts(policy, dataset.input, dataset.train, refused))
        sheet = Image.new("RGB", (1, 1), PAPER)  # what `dvc plots` shows of images
    else:
        sheet = contact_sheet(policy, dataset.train, refused)
    sheet.save(out / "contact_sheet.png", optimize=True)
    write_json(
        out / "metrics.json", {"operations": len(policy["operations"]), "left_out": len(policy["left_out"])}
    )


# ---- the contact sheet


def contact_sheet(policy: dict[str, Any], train: Split, refused: Sequence[Refused] = ()) -> Image.Image:
    """Eight images as they are, then under each operation alone, then under all together; at last under each of what
    was tried, and did not help."""
    images_NHWC, labels_N = _examples(train)
    operations = policy["operations"]
    rows: list[Row] = [("original", [], images_NHWC)]
    for name, ranges in operations.items():
        alone = {**policy, "operations": {name: ranges}}
        rows.append((name.replace("_", " "), _words(ranges), _augmented(alone, images_NHWC, labels_N)))
    if len(operations) > 1:
        rows.append(("all together", [], _augmented(policy, images_NHWC, labels_N)))
    for name, gave, alone in refused:
        notes = ["tried, not used:", *gave.split(maxsplit=1)]
        rows.append((name, notes, _augmented(alone, images_NHWC, labels_N)))
    return _draw(rows)


def _examples(train: Split) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images evenly spaced over the training set in the order of their classes."""
    order = np.argsort(train.labels_N, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(COLUMNS, len(order))).astype(int)]
    return np.asarray(train.raw_N[rows]), np.asarray(train.labels_N[rows])


def _augmented(
    policy: dict[str, Any], images_NHWC: npt.NDArray[np.uint8], labels_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    seed = int(np.random.SeedSequence(policy["seed"]).generate_state(1)[0])  # spread, as in training
    augment = BatchAugment(policy)
    x_NCHW, _ = augment(
        torch.from_numpy(images_NHWC),
        torch.from_numpy(labels_N),
        torch.Generator().manual_seed(seed),
        int(labels_N.max()) + 1,
    )
    levels_NHWC = x_NCHW.permute(0, 2, 3, 1) / (augment.input.scale or 1.0) + augment.input.zero
    return levels_NHWC.round().clamp(0, 255).to(torch.uint8).numpy()


def _words(ranges: dict[str, float]) -> list[str]:
    return [f"{key} {value:g}" for key, value in ranges.items() if value]


def _draw(rows: list[Row]) -> Image.Image:
    """Each row is a label, smaller lines under it, and its pictures."""
    columns, height, width, _ = rows[0][2].shape
    size = _tile(height, width)
    pitch_x, pitch_y = size[0] + GAP, size[1] + GAP
    sheet = Image.new("RGB", (LABEL_WIDTH + columns * pitch_x, len(rows) * pitch_y + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(12)
    # Enlarged in whole blocks: smoothing would hide what the model sees.
    resample = Image.Resampling.NEAREST if size[0] >= width else Image.Resampling.BOX
    for i, (label, notes, images_NHWC) in enumerate(rows):
        top = GAP + i * pitch_y
        lines = [(line, INK, large) for line in textwrap.wrap(label, LABEL_LETTERS)]
        lines += [(note, FAINT, small) for note in notes]
        first = top + (size[1] - (len(lines) - 1) * LINE) // 2
        for line, (text, ink, font) in enumerate(lines):
            draw.text((2 * GAP, first + line * LINE), text, ink, font, anchor="lm")
        for j, image_HWC in enumerate(images_NHWC):
            picture = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC)
            sheet.paste(picture.resize(size, resample), (LABEL_WIDTH + j * pitch_x, top))
    return sheet


def _tile(height: int, width: int) -> tuple[int, int]:
    """Width and height of a picture on the sheet: a whole multiple, or reduced to fit."""
    factor = TILE / max(height, width)
    if factor >= 1:
        factor = round(factor)
    return max(1, round(width * factor)), max(1, round(height * factor))


if __name__ == "__main__":
    main(augment)

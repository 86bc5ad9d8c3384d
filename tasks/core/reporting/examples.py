"""Sections of the report that show single examples: mistakes, the words that a model goes by, augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.data.dataset import Dataset
from tasks.core.data.inputs import TextInput
from tasks.core.evaluation.candidates import number, read_result, read_table
from tasks.core.reporting.pictures import PIXEL_ART, file_uri, image_uri

LONGEST_SHOWN = 400  # characters of a text


def mistakes(evaluation: Path, selected: str, dataset: Dataset, most: int) -> dict[str, Any]:
    """The wrong answers that the selected model was surest of."""
    rows = [r for r in read_table(evaluation / "mistakes.csv") if r["candidate"] == selected]
    rows.sort(key=lambda r: (-number(r["probability"]), int(r["index"])))
    shown = rows[:most]
    raw_N = dataset.test.taken(np.array([int(row["index"]) for row in shown], np.intp)).raw_N
    texts = isinstance(dataset.input, TextInput)
    return {
        "shown": [
            {
                "text": example[:LONGEST_SHOWN] + "…" * (len(example) > LONGEST_SHOWN) if texts else None,
                "uri": None if texts else image_uri(example),
                "index": row["index"],
                "true": row["true"],
                "predicted": row["predicted"],
                "probability": number(row["probability"]),
            }
            for row, example in zip(shown, np.asarray(raw_N), strict=True)
        ],
        "texts": texts,
        "pixelated": not isinstance(dataset.input, TextInput) and max(dataset.input.shape[:2]) <= PIXEL_ART,
        "none": not rows,
    }


def words(selection: Path) -> dict[str, list[dict[str, Any]]] | None:
    """Those by which the selected model knows each class; None where it reads no texts."""
    path = selection / "words.json"
    return read_result(path) if path.exists() else None


def augmentation(augment: Path) -> dict[str, Any]:
    """The policy, and the sheet of pictures before and after it."""
    policy = read_result(augment / "policy.json")
    sheet, examples = augment / "contact_sheet.png", augment / "examples.json"
    return {
        "operations": sorted(policy["operations"].items()),
        "left_out": sorted(policy["left_out"].items()),
        "texts": read_result(examples) if examples.exists() else None,
        "sheet": file_uri(sheet) if sheet.exists() and not examples.exists() else None,
    }

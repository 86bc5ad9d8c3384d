"""What all tests share: the repository's root, and small real data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# Tests may run beside each other's child processes; a child finds the same interpreter and tools.
os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's 1,797 handwritten digits (8x8 grey) as an image folder, CLASS/NUMBER.png."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        target = folder / f"digit {label}"
        target.mkdir(exist_ok=True)
        picture = Image.fromarray((pixels.reshape(8, 8) * 15.9375).astype(np.uint8))
        picture.resize((16, 16), Image.Resampling.BILINEAR).save(target / f"{i}.png")
    return folder


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes params.yaml with the given sections."""

    def write(**sections: object) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps({"ingest": {"source": "unused"}, **sections}), encoding="utf-8")
        return path

    return write

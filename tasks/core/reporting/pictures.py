"""Pictures that travel inside a page, as PNG data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image

LARGEST = 160  # pixels a side; a page with dozens of photographs stays small
PIXEL_ART = 96  # below this, enlarge in whole blocks: smoothing would hide what the model saw


def image_uri(image_HWC: npt.NDArray[Any]) -> str:
    """uint8 [H, W, C] (C is 1 or 3), reduced to at most LARGEST pixels a side."""
    image = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC)
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _uri(buffer.getvalue())


def file_uri(path: Path) -> str:
    """A PNG file, as it is."""
    return _uri(path.read_bytes())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

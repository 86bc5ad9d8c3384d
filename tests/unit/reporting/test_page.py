"""Numbers, names and pictures as the page shows them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tasks.core.reporting.page import count, key, milliseconds, p_value, percent, points, short, size, times
from tasks.core.reporting.pictures import LARGEST, image_uri


def test_picture_is_reduced_when_large() -> None:
    uri = image_uri(np.zeros((400, 800, 3), dtype=np.uint8))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (LARGEST, LARGEST // 2)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (percent(0.92131), "92.13 %"),
        (percent(float("nan")), "\u2013"),
        (points(-0.31), "\u22120.31"),
        (points(-0.001), "0.00"),
        (milliseconds(0.05712, True), "0.0571 ms"),
        (milliseconds(8.742), "8.74"),
        (milliseconds(312.4), "312"),
        (milliseconds(0), "0"),
        (size(999), "999 B"),
        (size(331_204), "331 kB"),
        (size(999_960), "1.00 MB"),
        (size(1_240_000), "1.24 MB"),
        (count(78_026), "78,026"),
        (short(11_700_000), "11.7 M"),
        (short(999_999), "1.00 M"),
        (short(312), "312"),
        (times(3.188), "3.19\u00d7"),
        (times(12.34), "12.3\u00d7"),
        (p_value(0.0278), "0.028"),
        (p_value(0.00099), "< 0.001"),
        (p_value(1.0), "1.000"),
        (p_value(float("nan")), "\u2013"),
    ],
)
def test_number_is_written_as_when(written: str, wanted: str) -> None:
    assert written.replace("\u00a0", " ") == wanted


def test_name_breaks_between_its_words_when_it_is_long() -> None:
    assert key("space.<weight>_decay") == "space.<wbr>&lt;weight&gt;_<wbr>decay"

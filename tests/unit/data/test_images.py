"""Single image files of every awkward kind; all made here."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.core.data import images
from tasks.core.data.images import DecodeJob, Header, HeaderJob, PixelsJob, Target
from tasks.core.data.sources import find_images

RNG = np.random.default_rng(0)
RGB_HWC = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
GREY_HW = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
MILLION = 10**6


def decode(path: Path, target: Target, max_pixels: int = MILLION) -> np.ndarray[Any, Any] | str:
    """The pixels [H, W, C] of one file, or why there are none."""
    rows = path.with_name("rows")
    rows.write_bytes(b"")
    result = images.decode(DecodeJob([os.fsencode(path)], max_pixels, target, str(rows), 0))
    if result.unusable:
        return result.unusable[0]
    return np.fromfile(rows, np.uint8).reshape(target.shape)


def header(path: Path, max_pixels: int = MILLION) -> Header | str:
    return images.read_headers(HeaderJob([os.fsencode(path)], max_pixels))[0]


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is text, whatever the name says", "no image in a known format"),
    ],
)
def test_header_gives_a_reason_when_a_file_is_no_image(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert header(path) == reason


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif"])
def test_decode_gives_a_reason_when_a_file_is_truncated(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert decode(path, Target(12, 12, 3)) in ("damaged or truncated", "no image in a known format")


def test_decode_gives_a_reason_when_a_file_is_gone(tmp_path: Path) -> None:
    assert decode(tmp_path / "gone.png", Target(12, 12, 3)) == "cannot be opened"


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_decode_gives_the_same_pixels_when_the_format_is_lossless(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(RGB_HWC))
    np.testing.assert_array_equal(decode(path, Target(12, 12, 3)), RGB_HWC)


def test_decode_gives_grey_when_asked_and_repeats_it_when_rgb_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY_HW))
    np.testing.assert_array_equal(decode(path, Target(12, 12, 1)), GREY_HW[..., None])
    np.testing.assert_array_equal(decode(path, Target(12, 12, 3)), np.repeat(GREY_HW[..., None], 3, axis=2))


def test_decode_keeps_the_upper_bits_when_pixels_have_16(tmp_path: Path) -> None:
    deep_HW = RNG.integers(0, 65536, (12, 12)).astype(np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(deep_HW))
    assert header(path) == Header(12, 12, "I;16")
    np.testing.assert_array_equal(decode(path, Target(12, 12, 1)), (deep_HW >> 8)[..., None])


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_header_gives_a_reason_when_the_range_of_values_is_unknown(tmp_path: Path, kind: type) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(GREY_HW.astype(kind)))
    assert header(path) == "32-bit or real values"


def test_decode_converts_when_colours_are_cmyk(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.new("CMYK", (12, 12), (0, 255, 255, 0)))
    assert np.asarray(decode(path, Target(12, 12, 3)))[0, 0].tolist() == [255, 0, 0]


def test_decode_converts_when_colours_are_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(RGB_HWC).quantize(16)
    path = saved(tmp_path / "a.png", image)
    assert header(path) == Header(12, 12, "P")
    np.testing.assert_array_equal(decode(path, Target(12, 12, 3)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_decode_lays_on_white_when_pixels_are_transparent(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "P":
        saved(path, Image.new("P", (12, 12), 0), transparency=0)
    else:
        saved(path, Image.new(mode, (12, 12), (0,) * len(mode)))
    assert (np.asarray(decode(path, Target(12, 12, 3))) == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_decode_takes_the_first_picture_when_there_are_several(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (12, 12), "red"), Image.new("RGB", (12, 12), "blue")
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", first, save_all=True, append_images=[second], **options)
    assert np.asarray(decode(path, Target(12, 12, 3)))[6, 6].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_decode_turns_the_image_when_exif_says_so(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6  # to be shown turned clockwise
    stored = Image.new("RGB", (16, 8), "black")
    stored.paste("white", (0, 0, 8, 8))  # the left half
    path = saved(tmp_path / f"a.{suffix}", stored, exif=exif)
    found = header(path)
    assert isinstance(found, Header)
    assert (found.height, found.width) == (16, 8)
    pixels = np.asarray(decode(path, Target(16, 8, 1)))
    assert pixels[:7].min() > 200
    assert pixels[9:].max() < 50


def bomb(side: int) -> bytes:
    """A PNG that says it is `side` x `side`, in some dozens of bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [1001, 100_000])
def test_header_gives_a_reason_when_an_image_is_gigantic(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bomb(side))
    assert header(path) == "more pixels than max_megapixels"
    assert decode(path, Target(12, 12, 1)) == "more pixels than max_megapixels"


def test_decode_pads_with_the_border_when_the_aspect_ratio_differs(tmp_path: Path) -> None:
    wide_HW = np.zeros((8, 16), np.uint8)
    wide_HW[0], wide_HW[-1] = 200, 100
    path = saved(tmp_path / "a.png", Image.fromarray(wide_HW))
    pixels = np.asarray(decode(path, Target(16, 16, 1)))[..., 0]
    np.testing.assert_array_equal(pixels[4:12], wide_HW)
    assert (pixels[:4] == 200).all()
    assert (pixels[12:] == 100).all()


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (1, 1), (3, 7), (500, 499)])
def test_decode_fits_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", size, 77))
    assert (np.asarray(decode(path, Target(12, 20, 1))) == 77).all()


def test_decode_is_near_the_full_decoding_when_a_jpeg_is_large(tmp_path: Path) -> None:
    y, x = np.mgrid[:600, :800]
    smooth = (127 + 60 * np.sin(x / 90) + 60 * np.cos(y / 70)).astype(np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth), quality=95)
    full = np.asarray(Image.fromarray(smooth).resize((40, 30), Image.Resampling.BILINEAR))
    pixels = np.asarray(decode(path, Target(30, 40, 1)))[..., 0]
    assert np.abs(pixels.astype(int) - full).max() <= 6


def encoded(name: str, image: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


WHOLE = [
    encoded("PNG", Image.fromarray(RGB_HWC)),
    encoded("PNG", Image.fromarray(RGB_HWC).quantize(8), transparency=1),
    encoded("JPEG", Image.fromarray(RGB_HWC).convert("CMYK"), progressive=True),
    encoded("GIF", Image.fromarray(RGB_HWC), save_all=True, append_images=[Image.fromarray(GREY_HW)]),
    encoded("WEBP", Image.fromarray(RGB_HWC)),
    encoded("BMP", Image.fromarray(RGB_HWC)),
    encoded("TIFF", Image.fromarray(RGB_HWC), compression="tiff_lzw"),
]
REASONS = {
    "empty file",
    "no image in a known format",
    "damaged or truncated",
    "more pixels than max_megapixels",
    "32-bit or real values",
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.sampled_from(WHOLE),
    length=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_decode_gives_pixels_or_a_known_reason_when_bytes_are_damaged(
    tmp_path: Path, data: bytes, length: float, changes: list[tuple[float, int]]
) -> None:
    damaged = bytearray(data[: int(len(data) * (1 - length / 2))])
    for position, value in changes:
        damaged[int(position * len(damaged))] = value
    path = tmp_path / "a"
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(header(path), Header) or header(path) in REASONS
        result = decode(path, Target(9, 9, 3))
    assert isinstance(result, np.ndarray) or result in REASONS


def test_convert_resizes_and_repeats_channels_when_the_target_differs(tmp_path: Path) -> None:
    pixels = np.array([np.full((4, 4), value) for value in (10, 20, 30)], np.uint8)
    source = tmp_path / "pixels"
    source.write_bytes(b"ab" + pixels.tobytes())
    rows = tmp_path / "rows"
    rows.write_bytes(b"")
    target = Target(6, 8, 3)
    job = PixelsJob(str(source), 2, 3, 4, 4, target, str(rows), 1)
    assert len(images.convert(job).digests_n) == 3
    written = np.fromfile(rows, np.uint8).reshape(4, *target.shape)
    assert [int(row.min()) for row in written] == [0, 10, 20, 30]
    assert [int(row.max()) for row in written] == [0, 10, 20, 30]


def test_formats_are_what_pillow_opens_less_those_refused_when_asked() -> None:
    taken = {names[0] for names in images.formats().values()}
    assert {"AVIF", "JPEG2000", "PNG", "TGA", "PPM"} <= taken
    assert not taken & set(images.REFUSED)
    with_extension = set(Image.registered_extensions().values())
    assert taken | set(images.REFUSED) >= set(Image.OPEN) & with_extension
    assert set(images.REFUSED) <= set(Image.OPEN), "Pillow no longer knows one that is refused"


@pytest.mark.parametrize("extension", ["avif", "jp2", "tga", "ppm", "pcx", "sgi", "ico", "dds", "qoi"])
def test_image_is_decoded_when_pillow_knows_its_format(extension: str, tmp_path: Path) -> None:
    path = tmp_path / "a" / f"picture.{extension}"
    path.parent.mkdir()
    side = 16 if extension == "ico" else 12
    Image.fromarray(RGB_HWC).resize((side, side)).save(path)
    assert list(find_images(tmp_path).paths) == [os.fsencode(f"a/picture.{extension}")]
    pixels = decode(path, Target(side, side, 3))
    assert not isinstance(pixels, str)
    assert np.abs(pixels.astype(int) - np.asarray(Image.open(path).convert("RGB"), int)).max() == 0


@pytest.mark.parametrize("extension", ["eps", "png"])
def test_no_program_is_run_when_a_file_holds_postscript(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"drawing.{extension}"
    Image.fromarray(RGB_HWC).save(path, "EPS")
    assert decode(path, Target(12, 12, 3)) == "no image in a known format"

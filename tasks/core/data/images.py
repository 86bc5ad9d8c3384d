"""Image files: what their headers say, and their pixels as uint8 of one size and kind.

Shapes: n images, H high, W wide, C channels (1 grey, 3 RGB). What reads a file raises Unusable when it
cannot, with a reason from a short list, so that reasons can be counted.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]

# A file that has the extension of one of these may hold any other of them: the content decides. A rarer format is
# looked for only where the extension says so, as many have no signature of their own and would take damaged files.
COMMON = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
# What Pillow knows and is not taken, with the reason. No decoder of these is ever started.
REFUSED = {
    "EPS": "a program, which Ghostscript would have to run",
    "WMF": "a drawing, which Windows would have to draw",
    "BUFR": "Pillow has no decoder of its own",
    "GRIB": "Pillow has no decoder of its own",
    "HDF5": "Pillow has no decoder of its own",
    "MPEG": "a film, of which Pillow reads the header alone",
    "IPTC": "notes about an image, and files of any kind within",
    "FITS": "measurements, whose range is unknown; it may be packed without a bound",
}
GREY_MODES = frozenset(("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"))
# What PIL's decoders raise on damaged files; a test feeds them thousands of those.
DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
TOO_LARGE = "more pixels than max_megapixels"
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange width and height

RULES = [
    "Of an animated file or one of several pages, the first picture is taken.",
    "The orientation in EXIF is applied; colour profiles are ignored.",
    "Transparent pixels are laid on white; palette, CMYK and other colours are converted to RGB.",
    "Of 16-bit values, the upper 8 bits are kept; 32-bit and real values are left out, for their range "
    "is unknown.",
]


@cache
def formats() -> dict[str, tuple[str, ...]]:
    """What a file may hold, by its extension: every format that Pillow opens here, less those REFUSED."""
    taken = {
        extension: format
        for extension, format in Image.registered_extensions().items()
        if format in Image.OPEN and format not in REFUSED
    }
    return {extension: tuple(dict.fromkeys((format, *COMMON))) for extension, format in taken.items()}


def extension(path: bytes) -> str:
    """What begins with the last dot of a file's name, in lower case."""
    return os.fsdecode(path[path.rfind(b".") :]).lower()


class Unusable(Exception):
    """A file that gives no image. The message is the reason."""


@dataclass(frozen=True, slots=True)
class Header:
    """Of an image as it is shown, that is, after turning it as EXIF says. `mode` is PIL's."""

    height: int
    width: int
    mode: str


@dataclass(frozen=True, slots=True)
class Target:
    """What every image becomes."""

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def row_bytes(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True, slots=True)
class HeaderJob:
    """Files of which the headers are to be read; more pixels than `max_pixels` are too many."""

    paths: list[bytes]
    max_pixels: int


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Files to be decoded into the rows from `first_row` of `rows_file`, an existing file."""

    paths: list[bytes]
    max_pixels: int
    target: Target
    rows_file: str
    first_row: int


@dataclass(frozen=True, slots=True)
class PixelsJob:
    """The same for `count` bare grey images H x W, which lie in `pixels_file` from `offset` on."""

    pixels_file: str
    offset: int
    count: int
    height: int
    width: int
    target: Target
    rows_file: str
    first_row: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One digest a row (8 bytes of SHA-256 over its pixels), and the rows that hold no image."""

    digests_n: npt.NDArray[np.uint64]
    unusable: dict[int, str]


def read_headers(job: HeaderJob) -> list[Header | str]:
    """A header a file, or the reason why there is none. No pixel is decoded."""
    return [_header(path, job.max_pixels) for path in job.paths]


def decode(job: DecodeJob) -> Decoded:
    """Decode the files of a job into its rows; a file that fails leaves a row of zeros.

    Raises:
        OSError: the rows cannot be written.
    """
    rows_nHWC = np.zeros((len(job.paths), *job.target.shape), np.uint8)
    unusable: dict[int, str] = {}
    for i, path in enumerate(job.paths):
        try:
            with _opened(path, job.max_pixels) as image:
                rows_nHWC[i] = _pixels(image, job.target)
        except Unusable as error:
            unusable[i] = str(error)
    _write(rows_nHWC, job.rows_file, job.first_row * job.target.row_bytes)
    return Decoded(digests(rows_nHWC), unusable)


def convert(job: PixelsJob) -> Decoded:
    """Bring bare pixels to the target's size and channels. Raises OSError as `decode` does."""
    source = np.fromfile(job.pixels_file, np.uint8, job.count * job.height * job.width, offset=job.offset)
    rows_nHWC = np.empty((job.count, *job.target.shape), np.uint8)
    for i, pixels_HW in enumerate(source.reshape(job.count, job.height, job.width)):
        rows_nHWC[i] = _fit(_colours(Image.fromarray(pixels_HW), job.target.channels), job.target)
    _write(rows_nHWC, job.rows_file, job.first_row * job.target.row_bytes)
    return Decoded(digests(rows_nHWC), {})


def digests(rows_nHWC: Pixels) -> npt.NDArray[np.uint64]:
    """The first 64 bits of SHA-256 over each row."""
    joined = b"".join(hashlib.sha256(row.data).digest()[:8] for row in rows_nHWC)
    return np.frombuffer(joined, ">u8").astype(np.uint64)


def _header(path: bytes, max_pixels: int) -> Header | str:
    try:
        with _opened(path, max_pixels) as image:
            width, height = image.size
            # Asking PNG for EXIF that is not in its header would decode it; TIFF has turned by itself.
            if "exif" in image.info:
                turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
                width, height = (height, width) if turned else (width, height)
            return Header(height, width, image.mode)
    except Unusable as error:
        return str(error)


@contextmanager
def _opened(path: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The image in a file, not decoded yet. What goes wrong until the block ends becomes Unusable."""
    Image.MAX_IMAGE_PIXELS = max_pixels  # PIL refuses above twice this, also what a header conceals
    try:
        with Path(os.fsdecode(path)).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise Unusable("empty file")
            with Image.open(file, formats=formats().get(extension(path), COMMON)) as image:
                if image.width * image.height > max_pixels:
                    raise Unusable(TOO_LARGE)
                if image.mode in ("I", "F"):
                    raise Unusable("32-bit or real values")
                yield image
    except UnidentifiedImageError:
        raise Unusable("no image in a known format") from None
    except (PermissionError, FileNotFoundError):
        raise Unusable("cannot be opened") from None
    except Image.DecompressionBombError:
        raise Unusable(TOO_LARGE) from None
    except DAMAGED:
        raise Unusable("damaged or truncated") from None


def _pixels(image: Image.Image, target: Target) -> Pixels:
    """An opened image as [H, W, C] of the target."""
    # JPEG can be decoded at 1/2, 1/4 or 1/8: many times quicker, and still twice what is needed.
    longest = 2 * max(target.height, target.width)
    image.draft(None, (longest, longest))
    ImageOps.exif_transpose(image, in_place=True)
    return _fit(_colours(image, target.channels), target)


def _colours(image: Image.Image, channels: int) -> Image.Image:
    """As mode L or RGB."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("L" if channels == 1 else "RGB")


def _fit(image: Image.Image, target: Target) -> Pixels:
    """Scaled to just fit, in the middle, with its border pixels repeated outwards."""
    scale = min(target.width / image.width, target.height / image.height)
    width = min(target.width, max(1, round(image.width * scale)))
    height = min(target.height, max(1, round(image.height * scale)))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels_HWC = np.asarray(image).reshape(height, width, target.channels)
    spare_y, spare_x = target.height - height, target.width - width
    if spare_y or spare_x:
        padding = ((spare_y // 2, spare_y - spare_y // 2), (spare_x // 2, spare_x - spare_x // 2), (0, 0))
        pixels_HWC = np.pad(pixels_HWC, padding, mode="edge")
    return pixels_HWC


def _write(rows_nHWC: Pixels, path: str, offset: int) -> None:
    left = rows_nHWC.data.cast("B")
    descriptor = os.open(path, os.O_WRONLY)
    try:
        while left:
            written = os.pwrite(descriptor, left, offset)
            left, offset = left[written:], offset + written
    finally:
        os.close(descriptor)

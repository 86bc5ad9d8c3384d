"""Folders of images, single image files of every awkward kind, and IDX files; all made here."""

from __future__ import annotations

import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.core.common.errors import BadInput
from tasks.core.data import images
from tasks.core.data.idx import has_idx, open_idx
from tasks.core.data.images import DecodeJob, Header, HeaderJob, PixelsJob, Target
from tasks.core.data.sources import OPEN, TEST, TRAIN, VAL, Found, _Scan, find_images

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


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def listed(found: Found) -> list[tuple[str, str, int]]:
    return [
        (os.fsdecode(found.paths[i]), found.classes[label], int(split))
        for i, (label, split) in enumerate(zip(found.labels_N, found.splits_N, strict=True))
    ]


# --- folders -----------------------------------------------------------------------------------------


def test_find_images_gives_classes_and_open_splits_when_folders_are_classes(tmp_path: Path) -> None:
    tree(tmp_path, "b/1.png", "a/2.JPG", "a/1.webp")
    assert listed(find_images(tmp_path)) == [
        ("a/1.webp", "a", OPEN),
        ("a/2.JPG", "a", OPEN),
        ("b/1.png", "b", OPEN),
    ]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_find_images_gives_the_splits_when_folders_are_splits(tmp_path: Path, val: str) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/b/2.png", "test/a/3.png")
    assert set(listed(find_images(tmp_path))) == {
        ("train/a/1.png", "a", TRAIN),
        ("train/b/1.png", "b", TRAIN),
        (f"{val}/b/2.png", "b", VAL),
        ("test/a/3.png", "a", TEST),
    }


def test_find_images_takes_train_as_a_class_when_other_classes_stand_beside_it(tmp_path: Path) -> None:
    tree(tmp_path, "train/1.png", "tram/1.png")
    assert find_images(tmp_path).classes == ["train", "tram"]


def test_find_images_refuses_when_two_folders_are_one_split(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    with pytest.raises(BadInput, match="val and valid are the same split"):
        find_images(tmp_path)


def test_find_images_sorts_by_the_bytes_of_paths_when_folders_are_nested(tmp_path: Path) -> None:
    tree(tmp_path, "a/x.png", "a/x/1.png", "a/x/deep/2.png", "a/x-1.png", "a/é.png", "b/1.png")
    found = find_images(tmp_path)
    paths = [found.paths[i] for i in range(len(found.paths))]
    assert paths == sorted(paths)
    assert len(paths) == 6
    assert found.labels_N.tolist() == [0, 0, 0, 0, 0, 1]


def test_find_images_counts_what_it_passes_over_by_reason(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/notes.txt", "a/.hidden.png", "a/.thumbs/2.png", "readme.md", "b/1.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    assert find_images(tmp_path).left_out.counts == {
        "not an image by its extension": 1,
        "hidden": 2,
        "not in a class folder": 1,
        "not a regular file": 1,
    }


def test_find_images_warns_when_a_class_folder_is_empty(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "c/1.png", "d/readme.txt")
    (tmp_path / "b").mkdir()
    found = find_images(tmp_path)
    assert found.classes == ["a", "c"]
    assert found.labels_N.tolist() == [0, 1]
    assert found.warnings == [f"class folder {name} holds no image and is left out" for name in "bd"]


def test_find_images_follows_links_only_to_files_inside_the_folder(tmp_path: Path) -> None:
    source = tree(tmp_path / "set", "a/1.png", "b/1.png")
    outside = tree(tmp_path / "other", "2.png")
    (source / "a" / "in.png").symlink_to(source / "b" / "1.png")
    (source / "a" / "out.png").symlink_to(outside / "2.png")
    (source / "a" / "folder").symlink_to(source / "b")
    (source / "a" / "parent").symlink_to(source)
    (source / "a" / "itself.png").symlink_to(source / "a" / "itself.png")
    (source / "a" / "there.png").symlink_to(source / "a" / "and back.png")
    (source / "a" / "and back.png").symlink_to(source / "a" / "there.png")
    os.mkfifo(source / "b" / "queue")
    (source / "a" / "queue.png").symlink_to(source / "b" / "queue")
    (source / "a" / "dangling.png").symlink_to(source / "nowhere.png")
    (source / "c").symlink_to(outside)
    found = find_images(source)
    assert [path for path, _, _ in listed(found)] == ["a/1.png", "a/in.png", "b/1.png"]
    assert found.left_out.counts == {
        "link that leaves the folder": 2,
        "link to a folder": 1,
        "link to nothing": 1,
        "link that loops": 4,
        "not a regular file": 2,
    }


def test_find_images_is_refused_when_two_class_folders_look_alike(tmp_path: Path) -> None:
    tree(tmp_path, r"caf\xe9/1.png")
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(odd)  # noqa: PTH102
    Path(os.fsdecode(odd + b"/2.png")).write_bytes(b"x")
    with pytest.raises(BadInput, match=r"two class folders are both shown as caf\\xe9; rename one"):
        find_images(tmp_path)


def test_find_images_goes_on_when_a_folder_vanishes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "a/1.png", "a/inner/2.png", "b/1.png")
    listing = _Scan.listing

    def late(scan: _Scan, folder: bytes) -> Any:
        if folder == b"a/inner/":
            shutil.rmtree(tmp_path / "a" / "inner")
        return listing(scan, folder)

    monkeypatch.setattr(_Scan, "listing", late)
    found = find_images(tmp_path)
    assert [path for path, _, _ in listed(found)] == ["a/1.png", "b/1.png"]
    assert found.left_out.listed == [{"path": "a/inner/", "reason": "folder that vanished while it was read"}]


def test_find_images_keeps_names_when_they_hold_unicode_blanks_and_foreign_bytes(tmp_path: Path) -> None:
    tree(tmp_path, "grüne Äpfel/bild 1.png", "星/a\nb.png")
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(odd)  # noqa: PTH102
    Path(os.fsdecode(odd + b"/\xff.png")).write_bytes(b"x")
    found = find_images(tmp_path)
    assert found.classes == [r"caf\xe9", "grüne Äpfel", "星"]
    assert found.paths[0] == b"caf\xe9/\xff.png"


# --- single files ------------------------------------------------------------------------------------


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


# --- IDX ---------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.write_bytes(
        struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("t10k", 3)):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", RNG.integers(0, 256, (count, 4, 5)))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.arange(count) % 3)
    return tmp_path


def test_open_idx_gives_both_files_one_after_the_other(idx: Path) -> None:
    found = open_idx(idx)
    assert has_idx(idx)
    assert found.classes == ["0", "1", "2"]
    assert (found.height, found.width) == (4, 5)
    assert found.labels_N.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert found.splits_N.tolist() == [TRAIN] * 6 + [TEST] * 3
    assert (found.name(5), found.name(6)) == ("train-images-idx3-ubyte#5", "t10k-images-idx3-ubyte#0")


def test_open_idx_leaves_splits_open_when_there_is_no_test(idx: Path) -> None:
    for kind in ("images-idx3", "labels-idx1"):
        (idx / f"t10k-{kind}-ubyte").unlink()
    assert set(open_idx(idx).splits_N.tolist()) == {OPEN}


def test_open_idx_names_classes_when_they_are_listed(idx: Path) -> None:
    (idx / "classes.txt").write_text("cat\nnone of these\nhot dog\nbird\n", encoding="utf-8")
    write_idx(idx / "train-labels-idx1-ubyte", np.array([0, 2, 2, 2, 0, 0]))
    write_idx(idx / "t10k-labels-idx1-ubyte", np.array([0, 2, 2]))
    found = open_idx(idx)
    assert found.classes == ["cat", "hot dog"]
    assert found.labels_N.tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1]
    assert found.warnings == [
        f"class {name} has no image and is left out" for name in ("none of these", "bird")
    ]


def truncate(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def swap(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").rename(folder / "train-images-idx3-ubyte")
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(6))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "train-images-idx3-ubyte: 135 bytes long, but its header speaks of 136"),
        (swap, "train-images-idx3-ubyte: not an IDX file of images"),
        (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b""), "not an IDX file of labels"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "test-labels-idx1-ubyte is missing"),
        (lambda f: write_idx(f / "t10k-labels-idx1-ubyte", np.zeros(4)), "3 images, but 4 labels"),
        (lambda f: write_idx(f / "t10k-images-idx3-ubyte", np.zeros((3, 5, 5))), "must be of one size"),
        (lambda f: write_idx(f / "train-images-idx3-ubyte", np.zeros((0, 5, 5))), "holds no images"),
        (lambda f: (f / "classes.txt").write_text("a\nb\n"), "names 2 classes, but the labels go up to 2"),
        (lambda f: (f / "classes.txt").write_text("a\nb\na\n"), "a stands there twice"),
        (lambda f: write_idx(f / "test-labels-idx1-ubyte", np.zeros(3)), "are the same; keep one"),
    ],
)
def test_open_idx_refuses_when_files_do_not_fit(
    idx: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(idx)
    with pytest.raises(BadInput, match=message):
        open_idx(idx)


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


# --- formats ----------------------------------------------


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
    assert [name for name, _, _ in listed(find_images(tmp_path))] == [f"a/picture.{extension}"]
    pixels = decode(path, Target(side, side, 3))
    assert not isinstance(pixels, str)
    assert np.abs(pixels.astype(int) - np.asarray(Image.open(path).convert("RGB"), int)).max() == 0


@pytest.mark.parametrize("extension", ["eps", "png"])
def test_no_program_is_run_when_a_file_holds_postscript(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"drawing.{extension}"
    Image.fromarray(RGB_HWC).save(path, "EPS")
    assert decode(path, Target(12, 12, 3)) == "no image in a known format"

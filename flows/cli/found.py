"""What `modelpress init` says of the images or texts that it was pointed at: what is there, what will be left out, what is odd."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from flows.cli.found_texts import look_at_texts
from tasks.core.common.errors import BadInput
from tasks.core.config.params import IngestParams
from tasks.core.data import archives, documents, idx
from tasks.core.data.find import find
from tasks.core.data.image_samples import choose_target
from tasks.core.data.images import GREY_MODES, Header, HeaderJob, read_headers
from tasks.core.data.sources import SPLITS, Found
from tasks.core.data.tables import METADATA, TABLES, lists_images

LISTED = 6  # classes and reasons that are named
LOOKED_INTO = 400  # files whose headers are read, evenly spread
LARGEST_ARCHIVE = 200e6  # bytes that are unpacked to be looked into
UNBALANCED = 20  # times as many images in the largest class as in the smallest


def source_of(path: Path) -> tuple[Path, str | None]:
    """What `ingest.source` and `ingest.labels` become, of a folder, an archive of one, or a table in one.

    Raises:
        BadInput: there is nothing at `path`.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() in TABLES and lists_images(path):
        return path.parent, None if path.name in METADATA else path.name
    return path, None


def look(source: Path, labels: str | None) -> list[str]:
    """Lines for people.

    Raises:
        BadInput: there is nothing to learn from, or it is not clear what it is.
    """
    params = IngestParams(source=str(source), labels=labels)
    if labels is None and documents.tables(source):
        return look_at_texts(params, source)
    if source.is_file():
        if source.stat().st_size > LARGEST_ARCHIVE:
            return ["An archive that is too large to look into here: stage ingest unpacks it, within bounds."]
        with (
            tempfile.TemporaryDirectory() as scratch,
            archives.unpacked(source, Path(scratch) / "in") as folder,
        ):
            return look(folder, labels)
    if idx.has_idx(source):
        packed = idx.open_idx(source)
        counted = _counted(packed.classes, packed.labels_N)
        return [counted, f"All: {packed.height} x {packed.width}, grey."]
    found, _ = find(params, source)
    return [
        _counted(found.classes, found.labels_N),
        *_headers(found, params),
        *_left_out(found),
        *_odd(found, params),
    ]


def _counted(classes: list[str], labels_N: np.ndarray) -> str:
    counts_K = np.bincount(labels_N, minlength=len(classes))
    order = np.argsort(-counts_K, kind="stable")
    named = [
        f"{classes[k]} ({counts_K[k]:,})"
        for k in (order if len(order) <= LISTED else [*order[: LISTED - 1], order[-1]])
    ]
    if len(order) > LISTED:
        named.insert(-1, "…")
    return f"{counts_K.sum():,} images in {len(classes):,} classes: {', '.join(named)}."


def _headers(found: Found, params: IngestParams) -> list[str]:
    max_pixels = int(params.max_megapixels * 1e6)
    rows = np.unique(np.linspace(0, len(found.paths) - 1, LOOKED_INTO).astype(int))
    headers = read_headers(HeaderJob([found.root + found.paths[int(i)] for i in rows], max_pixels))
    good = [header for header in headers if isinstance(header, Header)]
    bad = Counter(header for header in headers if isinstance(header, str))
    lines = []
    if good:
        sizes = Counter((header.height, header.width) for header in good)
        (height, width), times = sizes.most_common(1)[0]
        what = f"{height} x {width}"
        if len(sizes) > 1:
            shortest, longest = (end(max(size) for size in sizes) for end in (min, max))
            between = f"{shortest} to {longest}" if shortest < longest else f"{longest}"
            what = f"{between} pixels at the longer side, most often {what} ({times / len(good):.0%})"
        grey = sum(header.mode in GREY_MODES for header in good) / len(good)
        colour = (
            "grey" if grey == 1 else "in colour" if grey == 0 else f"{grey:.0%} grey, the others in colour"
        )
        lines.append(f"{_of(len(good), len(found.paths))}: {what}, {colour}.")
        target = choose_target(params, sizes, grey == 1)
        if set(sizes) != {(target.height, target.width)}:
            lines.append(f"Scaled to {target.height} x {target.width} by stage ingest (ingest.size).")
    lines += [
        f"Cannot be used: {n} of {len(headers)} looked into: {reason}."
        for reason, n in bad.most_common(LISTED)
    ]
    return lines


def _of(some: int, all_: int) -> str:
    return "All" if some == all_ else f"{some} of them looked into"


def _left_out(found: Found) -> list[str]:
    counts = found.left_out.counts
    if not counts:
        return []
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common(LISTED))
    example = found.left_out.listed[0]["path"]
    return [f"Left out: {reasons} (such as {example}); data/ingest/report.json will list them."]


def _odd(found: Found, params: IngestParams) -> list[str]:
    """What is suspicious, a line each."""
    counts_K = np.bincount(found.labels_N, minlength=len(found.classes))
    lines = [f"Odd: {warning}." for warning in found.warnings]
    few = [name for name, n in zip(found.classes, counts_K, strict=True) if n < params.min_per_class]
    if few:
        lines.append(
            f"Odd: fewer than {params.min_per_class} images of {_some(few)}: stage ingest will refuse that, unless "
            "ingest.min_per_class is lower."
        )
    elif counts_K.max() > UNBALANCED * counts_K.min():
        small, large = (found.classes[int(k)] for k in (counts_K.argmin(), counts_K.argmax()))
        lines.append(
            f"Odd: {counts_K.max() // counts_K.min()} times as many images of {large} as of {small}: "
            "train.sampling: balanced may help the small classes."
        )
    alike = Counter("".join(name.lower().split()) for name in found.classes)
    if double := [name for name in found.classes if alike["".join(name.lower().split())] > 1]:
        lines.append(f"Odd: classes that differ by case or blanks alone: {_some(double)}.")
    if splits := [name for name in found.classes if name.lower() in (*SPLITS, "valid", "validation")]:
        lines.append(
            f"Odd: {_some(splits)} taken for classes, since other folders than train, val and test stand beside."
        )
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")

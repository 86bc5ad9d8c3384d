"""Raw images -> packed arrays, checked.

An image folder is read twice: its headers, to settle one size and kind for all, then its pixels, by one
process a CPU, into a file of rows. From there (or from IDX files as they are) the rows are copied to the
arrays of their splits. Memory holds some bytes an image and some megabytes of pixels, never the set.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.common.files import write_json
from tasks.core.config.cli import main
from tasks.core.config.params import IngestParams
from tasks.core.data import packing
from tasks.core.data.near import Near
from tasks.core.data.read import read_samples
from tasks.core.data.samples import Paced, Samples
from tasks.core.data.sources import OPEN, SPLITS, TEST, TRAIN, VAL

EXAMPLES = 20  # pairs of duplicates that the report names
# Of a split that is drawn: images that can tell something, and the share of all that they may be. A candidate that loses
# nothing but changes one prediction in a hundred is within a bar of 0.75 points on 2,000 validation images in 92 draws of
# 100, on 700 in half of them.
TELLING, LEAST_SHARE, MOST_SHARE = {VAL: 2000, TEST: 700}, {VAL: 0.1, TEST: 0.15}, 0.2

Counts = dict[str, dict[str, int]]


def ingest(params: IngestParams, source: Path, out: Path) -> None:
    """Pack images or texts into memory-mapped arrays, with a manifest and a report.

    Raises:
        BadInput: `source` is missing, empty, of one class only, or a class is too small.
        StageFailed: a decoding process was killed.
        OSError: the disk is full.
    """
    scratch = out / "rows.partial"
    samples = read_samples(params, source, scratch)
    kept_N = packing.mark_duplicates(samples.digests_N, samples.labels_N, samples.places_N)
    if samples.groups_N is not None:
        packing.mark_scattered(samples.places_N, samples.groups_N)
    for row in np.flatnonzero(samples.places_N < packing.UNUSABLE).tolist():
        samples.left_out.add(samples.name(row), samples.reason(int(samples.places_N[row])))
    _check_sizes(samples, params.min_per_class, source)
    _draw_splits(samples, params)
    counts = _counts(samples)
    _check_train(samples, counts, source)
    with Paced("pack", len(samples.places_N)) as paced:
        written = samples.pack(out, paced.step)
    close = samples.near(out, params.seed)
    _write_manifest(samples, out / "manifest.csv")
    shared = {"counts": counts, **written.statistics}
    dataset = {
        "classes": samples.classes,
        **written.layout,
        "source": params.source,
        "digest": written.digest,
    }
    write_json(out / "dataset.json", {**dataset, **shared})
    write_json(out / "report.json", {**_report(samples, kept_N, counts, close), **shared})
    write_json(out / "metrics.json", _metrics(samples, counts, close))


def _check_sizes(samples: Samples, least: int, source: Path) -> None:
    kept = np.bincount(samples.labels_N[samples.places_N >= OPEN], minlength=len(samples.classes))
    small = [f"{name} ({n})" for name, n in zip(samples.classes, kept, strict=True) if n < least]
    if small:
        left_out = f"; left out: {samples.left_out}" if samples.left_out.counts else ""
        raise BadInput(
            f"{source}: fewer than ingest.min_per_class ({least}) {samples.noun} in {_some(small)}{left_out}: add some, or lower it"
        )


def _check_train(samples: Samples, counts: Counts, source: Path) -> None:
    """Nothing can be learnt of a class without training images; measured without test ones, it can't."""
    untrained = [name for name, n in counts["train"].items() if n == 0]
    if untrained:
        raise BadInput(f"{source}: no training {samples.noun} of {_some(untrained)}, only for val or test")
    for split in ("val", "test"):
        absent = [name for name, n in counts[split].items() if n == 0]
        if absent:
            samples.warnings.append(f"no {split} {samples.noun} of {_some(absent)}")


def _draw_splits(samples: Samples, params: IngestParams) -> None:
    """Draw what was not given: from images in no split, or from those of train."""
    places_N = samples.places_N
    asked = {TEST: params.test_fraction, VAL: params.val_fraction}
    absent = [split for split in asked if split not in places_N]
    if absent:
        places_N[places_N == TRAIN] = OPEN
    images = int((places_N == OPEN).sum())
    missing = {split: _fraction(asked[split], images, split) for split in absent}
    packing.draw_splits(samples.digests_N, samples.labels_N, places_N, missing, params.seed, samples.groups_N)
    samples.rules.extend(
        f"{SPLITS[split]} was not given: {fraction:g} of {'train' if len(missing) == 1 else 'all'} was drawn."
        for split, fraction in missing.items()
    )


def _fraction(asked: float | str, images: int, split: int) -> float:
    """What to hold out: so many images that they can tell something, as far as training can spare them."""
    if isinstance(asked, float):
        return asked
    return round(min(MOST_SHARE, max(LEAST_SHARE[split], TELLING[split] / max(1, images))), 3)


def _counts(samples: Samples) -> Counts:
    return {
        name: {
            label: int(n)
            for label, n in zip(
                samples.classes,
                np.bincount(samples.labels_N[samples.places_N == split], minlength=len(samples.classes)),
                strict=True,
            )
        }
        for split, name in enumerate(SPLITS)
    }


def _write_manifest(samples: Samples, path: Path) -> None:
    """One line an example that is kept, in the order of the arrays."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "split", "label", "sha256"])
        for split, name in enumerate(SPLITS):
            for row in np.flatnonzero(samples.places_N == split).tolist():
                label = samples.classes[samples.labels_N[row]]
                writer.writerow([samples.name(row), name, label, f"{samples.digests_N[row]:016x}"])


def _report(samples: Samples, kept_N: npt.NDArray[np.int64], counts: Counts, close: Near) -> dict[str, Any]:
    total = sum(_totals(counts).values())
    left_out = samples.left_out
    pairs = [(int(kept_N[i]), i) for i in np.flatnonzero(kept_N >= 0)[:EXAMPLES].tolist()]
    across = left_out.counts[samples.reason(packing.ACROSS)]
    conflicting = left_out.counts[samples.reason(packing.CONFLICT)]
    warnings = list(samples.warnings)
    if across:
        warnings.append(f"{across} {samples.noun} stood in two splits; each is kept in one of them")
    if conflicting:
        warnings.append(f"{conflicting} {samples.noun} have the same {samples.alike} as one of another class")
    if close.pairs:
        warnings.append(
            f"{close.count(TEST)} test and {close.count(VAL)} val {samples.noun} look like one for training "
            f"({close.measure} by {close.threshold:g} or more; with {samples.noun} of other classes "
            f"{close.false_alarms:.2%} do), so that their figures may be too good; ingest.groups keeps together what belongs together"
        )
    return {
        "found": total + left_out.counts.total(),
        "kept": total,
        "left_out": left_out.listed,
        "left_out_counts": dict(left_out.counts),
        "duplicates": {
            "within": left_out.counts[samples.reason(packing.WITHIN)],
            "across_splits": across,
            "examples": [[samples.name(kept), samples.name(spare)] for kept, spare in pairs],
        },
        "near_duplicates": _near(samples, close),
        "conflicting_labels": conflicting,
        **samples.about,
        "rules": [*samples.rules, *samples.general],
        "warnings": warnings,
    }


def _near(samples: Samples, close: Near) -> dict[str, Any]:
    rows = {split: np.flatnonzero(samples.places_N == split) for split in (TRAIN, VAL, TEST)}
    return {
        "test": close.count(TEST),
        "val": close.count(VAL),
        "looked_at": close.looked_at,
        "correlation": close.threshold,
        "false_alarm_rate": close.false_alarms,
        "examples": [
            [
                samples.name(int(rows[TRAIN][train])),
                samples.name(int(rows[split][row])),
                round(correlation, 4),
            ]
            for split, row, train, correlation in close.pairs[:EXAMPLES]
        ],
    }


def _metrics(samples: Samples, counts: Counts, close: Near) -> dict[str, int]:
    left_out = samples.left_out.counts
    return {
        **{f"{name}_{samples.noun}": total for name, total in _totals(counts).items()},
        "classes": len(samples.classes),
        "left_out": left_out.total(),
        "duplicates": sum(left_out[samples.reason(place)] for place in (packing.WITHIN, packing.ACROSS)),
        "near_duplicates": len(close.pairs),
    }


def _totals(counts: Counts) -> dict[str, int]:
    return {name: sum(of_class.values()) for name, of_class in counts.items()}


def _some(names: list[str]) -> str:
    """A list that stays one line."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


if __name__ == "__main__":
    main(ingest)

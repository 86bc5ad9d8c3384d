"""What `modelpress init` says of a table of labelled texts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.config.params import IngestParams
from tasks.core.data import documents
from tasks.core.data.sources import SPLITS

LISTED = 6  # classes that are named
LONG = 10_000  # characters: a text that is longer is named


def look_at_texts(params: IngestParams, source: Path) -> list[str]:
    """Lines for people.

    Raises:
        BadInput: a table cannot be read, or what a column holds is not clear.
    """
    asked = documents.Asked(params.text, params.label, None, params.encoding)
    labels: Counter[str] = Counter()
    lengths: list[int] = []
    seen: set[int] = set()
    empty, unlabelled, double, columns, splits = 0, 0, 0, None, Counter[str]()
    for table, split in documents.tables(source).items():
        for columns, frame in documents.pieces(table, asked):
            for text, label in zip(frame[columns.text].tolist(), frame[columns.label].tolist(), strict=True):
                if not _there(text):
                    empty += 1
                elif not _there(label):
                    unlabelled += 1
                else:
                    labels[" ".join(str(label).split())] += 1
                    lengths.append(len(str(text)))
                    key = hash(" ".join(str(text).casefold().split()))
                    double += key in seen
                    seen.add(key)
                    splits[SPLITS[split]] += split >= 0
    assert columns is not None
    lines = [
        _counted(labels),
        f"Texts in column {columns.text}, labels in column {columns.label}"
        + (f", splits in column {columns.split}" if columns.split else "")
        + f"; half of the texts have {int(np.median(lengths or [0]))} characters or more, the longest {max(lengths, default=0):,}.",
    ]
    if given := {name: n for name, n in splits.items() if n}:
        lines.append("Given: " + ", ".join(f"{n:,} for {name}" for name, n in given.items()) + ".")
    left = {"without a text": empty, "without a label": unlabelled, "double": double}
    if any(left.values()):
        lines.append(
            "Left out: "
            + ", ".join(f"{n:,} {why}" for why, n in left.items() if n)
            + "; data/ingest/report.json will list them."
        )
    return [*lines, *_odd(labels, lengths, params)]


def _there(cell: Any) -> bool:
    return cell is not None and cell == cell and bool(str(cell).strip())


def _counted(labels: Counter[str]) -> str:
    order = labels.most_common()
    named = [
        f"{name} ({n:,})"
        for name, n in (order if len(order) <= LISTED else [*order[: LISTED - 1], order[-1]])
    ]
    if len(order) > LISTED:
        named.insert(-1, "…")
    return f"{labels.total():,} texts in {len(labels):,} classes: {', '.join(named)}."


def _odd(labels: Counter[str], lengths: list[int], params: IngestParams) -> list[str]:
    """What is suspicious, a line each."""
    lines = []
    sizes: Counter[str] = Counter()
    for name, n in labels.items():
        sizes[name.casefold()] += n
    few = [name for name in labels if sizes[name.casefold()] < params.min_per_class]
    if few:
        named = ", ".join(few[:LISTED]) + (f" and {len(few) - LISTED} more" if len(few) > LISTED else "")
        lines.append(
            f"Odd: fewer than {params.min_per_class} texts of {named}: stage ingest will refuse that, unless "
            "ingest.min_per_class is lower."
        )
    folded = Counter(name.casefold() for name in labels)
    if alike := sorted(name for name in labels if folded[name.casefold()] > 1):
        lines.append(
            f"Odd: labels that differ by upper and lower case alone are one class: {', '.join(alike[:LISTED])}."
        )
    if long := sum(length > LONG for length in lengths):
        lines.append(
            f"Odd: texts of more than {LONG:,} characters: {long:,}; a model sees their first words alone."
        )
    return lines

"""Images that belong together, such as all of one patient, and so must stand in one split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput

RULES = [
    "A group stands whole in one split; one that was given to several keeps its images in the last of train, val, test."
]


def group_names(spec: int | str, paths: Sequence[bytes]) -> list[str]:
    """What each image belongs to, by its path; one that belongs to nothing is a group of its own.

    Args:
        spec: 1: the folder that it lies in, 2: the one above, …; text: a regular expression, of which the first group
            (or all that it matches) names the images' group.

    Raises:
        BadInput: `spec` is no regular expression, or groups nothing.
    """
    texts = [os.fsdecode(path) for path in paths]
    if isinstance(spec, int):
        parts = [text.split("/") for text in texts]
        named = [part[-1 - spec] if len(part) > spec else None for part in parts]
    else:
        try:
            pattern = re.compile(spec)
        except re.error as error:
            raise BadInput(f"ingest.groups: {spec!r} is no regular expression: {error}") from None
        found = [pattern.search(text) for text in texts]
        named = [match and match.group(min(1, pattern.groups)) for match in found]
    if not any(named):
        raise BadInput(
            f"ingest.groups: {spec!r} says of no image what it belongs to, such as {texts[0] if texts else ''}"
        )
    return [name or f"/{text}" for name, text in zip(named, texts, strict=True)]


def numbered(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """[N] the same number for the same name."""
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)

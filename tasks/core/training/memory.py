"""What to do when a training step does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from tasks.core.common.errors import StageFailed

T = TypeVar("T")

# What torch's allocator on the CPU says, and oneDNN, when it gets none; they have no exception of their own.
CPU_SAYS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "could not create a primitive",
)


def within_memory(compute: Callable[[], T], images: int, attempt: Callable[[int], None] | None) -> T:
    """What `compute` gives; where memory does not suffice for it, find out how many images it is enough for.

    Args:
        images: that `compute` takes at once.
        attempt: computes a number of images in the same way; none on several ranks, which would wait for this one.

    Raises:
        StageFailed: memory did not suffice; says what does.
    """
    try:
        return compute()
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        said = str(error).strip().partition("\n")[0]
    # Here, not in the handler: as long as the error is known, so is all that had been computed.
    if attempt is None:
        raise StageFailed(
            f"out of memory with {images} examples at once: multiply train.accumulate, or divide batch_size"
        )
    parts = 2
    while images % parts == 0:
        try:
            attempt(images // parts)
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            parts *= 2
        else:
            raise StageFailed(
                f"out of memory with {images} examples at once: {images // parts} fit; multiply train.accumulate by "
                f"{parts}, or divide batch_size by it"
            )
    raise StageFailed(
        f"out of memory with {images} examples at once, and with {2 * images // parts} ({said}): take a smaller network"
    )


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        said in str(error) for said in CPU_SAYS
    )

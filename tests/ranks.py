"""Processes that are the ranks of one job after another: they import torch once, not once a test."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

Run = Callable[..., None]


@contextmanager
def ranks(count: int) -> Iterator[Run]:
    """`count` processes for the length of the block, and what runs `function(rank, **arguments)` on all of them.

    The function has to wait for the other ranks, as init_process_group does: a process that has ended takes the
    next rank. What a rank raises is raised here at once, and ends the block for the others.
    """
    with multiprocessing.get_context("spawn").Pool(count) as pool:

        def run(function: Callable[..., object], **arguments: Any) -> None:
            for _ in pool.imap_unordered(partial(function, **arguments), range(count)):
                pass

        yield run

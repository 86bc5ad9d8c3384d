"""About how long a run will take on this machine."""

from __future__ import annotations

import os
import time

import numpy as np

# Minutes of whole runs on 8,000 colour images of 64 x 64, two cores, where products of matrices did REFERENCE
# multiply-accumulates a second (benchmarks/datasets.py measures the minutes anew).
MINUTES = {"quick": 4, "normal": 25, "thorough": 65}
REFERENCE = 6.0e10
_SIDE, _SECONDS = 512, 0.3


def minutes() -> dict[str, int]:
    """By budget."""
    slower = REFERENCE / speed()
    return {budget: max(1, round(taken * slower)) for budget, taken in MINUTES.items()}


def speed() -> float:
    """Multiply-accumulates a second of products of float32 matrices, on the cores that this process may use; the best
    of some, since whatever else runs can only slow them down."""
    a, b = np.ones((2, _SIDE, _SIDE), np.float32)
    taken: list[float] = []
    started = time.perf_counter()
    while not taken or time.perf_counter() - started < _SECONDS:
        begun = time.perf_counter()
        a @ b
        taken.append(time.perf_counter() - begun)
    return float(_SIDE**3 / min(taken))


def sentence() -> str:
    """What `modelpress init` says of it."""
    quick, normal, thorough = minutes().values()
    cores = len(os.sched_getaffinity(0))
    return (
        f"`modelpress run` does everything. Here, on {cores} cores, that takes about {normal} minutes, less with few "
        f"examples; with --budget quick, to see what comes out, {quick}; with --budget thorough {thorough}."
    )

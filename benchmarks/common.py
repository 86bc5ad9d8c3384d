"""What the benchmarks share: sides timed in turn, and results kept beside the machine they are of."""

from __future__ import annotations

import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.core.common.files import write_json
from tasks.core.runtime.session import fingerprint

RESULTS = Path(__file__).parent / "results"


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, after one round that does not count.

    The sides take turns, and every other round runs backwards, so that a machine that slows down or
    speeds up meanwhile does so for all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        names = list(sides)[:: 1 if round_ % 2 else -1]
        for name in names:
            start = time.perf_counter()
            sides[name]()
            took = time.perf_counter() - start
            if round_ > 0:
                seconds[name].append(took)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times longer `slow` took, round by round: median, least and most."""
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "min": round(min(ratios), 3),
        "max": round(max(ratios), 3),
    }


def write_result(name: str, payload: Mapping[str, Any], packages: tuple[str, ...] = ()) -> Path:
    """Write benchmarks/results/NAME.json: `payload`, the machine, versions and the command line."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**payload, **about(packages)})
    return path


def about(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """The command line, the machine, and the versions of Python and of `packages`."""
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": fingerprint(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
    }

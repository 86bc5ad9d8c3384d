"""Which candidate is to be shipped, and why, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from tasks.core.config.params import SelectParams
from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import DENSE, Candidate
from tasks.core.reporting.page import NBSP, milliseconds, points, size
from tasks.core.reporting.verdict import rule

AS_FAST = 0.05  # share of the largest speed-up that may be missing: nobody notices it, and measuring it again may turn it


def choose(candidates: Iterable[Candidate], params: SelectParams, bar: Bar) -> tuple[Candidate, bool, str]:
    """The candidate to ship, whether any compressed one is within the bar, and why in one sentence.

    What was measured on the test examples plays no part. The reference competes too, as its drop is 0 by definition; it
    is also the answer when no other candidate is good enough. Of those that are about as fast as the fastest, the
    smallest is taken.
    """
    rows = list(candidates)
    dense = next(c for c in rows if c.name == DENSE)
    compressed = [c for c in rows if c.name != DENSE]
    rank = _RANKS[params.objective]
    accurate = [c for c in compressed if bar.passes(c.val_loss)]
    passing = [c for c in accurate if not _excess(c, params)]
    wanted = f"{points(bar.max_drop_points)} points"
    if not compressed:
        return dense, False, f"{DENSE} is the only candidate."
    if not accurate:
        near = min(compressed, key=lambda c: (c.val_drop_high, c.val_drop_points, c.name))
        reason = (
            f"No compressed candidate is within the bar of {wanted}: the closest, {near.name}, loses "
            f"{points(near.val_drop_points)} on the validation examples, and {points(near.val_drop_high)} at the upper "
            f"end of the 95 % interval; so {DENSE} stays."
        )
        return dense, False, reason + _unproven(compressed, bar)
    if not passing:
        near = min(accurate, key=rank)
        reason = (
            f"No candidate within the bar of {wanted} is fast and small enough: {near.name}, the "
            f"{params.objective}, {_excess(near, params)}; so {DENSE} stays."
        )
        return dense, False, reason.replace(NBSP, " ")
    good = [*passing, *([] if _excess(dense, params) else [dense])]
    best, what = min(good, key=rank), f"the {params.objective}"
    if params.objective == "fastest":
        as_fast = [c for c in good if c.speedup_b1 >= best.speedup_b1 * (1 - AS_FAST)]
        smaller = min(as_fast, key=_RANKS["smallest"])
        if smaller.size_bytes < best.size_bytes:
            best, what = smaller, f"the smallest of those within {100 * AS_FAST:.0f} % of the fastest"
    figure = (
        milliseconds(best.p50_ms_b1_t1, unit=True) if params.objective == "fastest" else size(best.size_bytes)
    )
    reason = (
        f"{best.name} is {what}, at {figure}, of the models that lose at most {wanted} of "
        f"accuracy {rule(bar)} ({len(accurate)} of the {len(compressed)} "
        f"compressed ones {'does' if len(accurate) == 1 else 'do'})."
    )
    better = [c for c in compressed if rank(c) < rank(best) and not _excess(c, params)]
    return best, True, reason.replace(NBSP, " ") + _unproven(better, bar)


_RANKS: dict[str, Callable[[Candidate], tuple[Any, ...]]] = {
    "fastest": lambda c: (c.p50_ms_b1_t1, c.size_bytes, c.name),
    "smallest": lambda c: (c.size_bytes, c.name),
}


def _unproven(candidates: Iterable[Candidate], bar: Bar) -> str:
    """The one of them, all refused or better than what was chosen, that the fewest more examples might let through, in a
    sentence; nothing where none lost so little."""
    needed = {c: bar.examples_to_prove(c.val_loss) for c in candidates if not bar.passes(c.val_loss)}
    near = min(needed, key=lambda c: (needed[c], c.name), default=None)
    if near is None or math.isinf(needed[near]):
        return ""
    return (
        f" {near.name} ({near.speedup_b1:.1f} times faster) lost {points(near.val_drop_points)} points on the validation "
        f"examples, but changes so many answers that it takes some {needed[near]:,} of them, in place of "
        f"{bar.examples:,}, to prove that it is within the bar."
    )


def _excess(candidate: Candidate, params: SelectParams) -> str:
    """How a candidate misses max_latency_ms or max_size_kb, in words; nothing if it does not."""
    if params.max_latency_ms is not None and candidate.p50_ms_b1_t1 > params.max_latency_ms:
        return f"takes {milliseconds(candidate.p50_ms_b1_t1, unit=True)}, above {params.max_latency_ms:g} ms"
    if params.max_size_kb is not None and candidate.size_bytes > params.max_size_kb * 1e3:
        return f"has {size(candidate.size_bytes)}, above {params.max_size_kb:g} kB"
    return ""

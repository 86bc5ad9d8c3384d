"""Latency, side by side: calls that take turns, and what their times say.

R: rounds, B: timed runs in a row, S: bootstrap samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.runtime.session import Raw, call, session

BLOCK = 20  # timed runs in a row, at most, before the next call has its turn
ROUNDS = 20  # wanted at least: the intervals come from what differs between rounds
WARMUP = 3  # runs before a block that are not counted: the caches are another's
RESAMPLES = 1000


@dataclass(frozen=True)
class Latency:
    """Of one call, in ms; `*_ci95` are the ends of 95 % intervals. The speed-up is how many times as fast
    as the reference it is: the median, over the rounds, of the ratio of the two medians in a round."""

    p50_ms: float
    p50_ms_ci95: tuple[float, float]
    p95_ms: float
    p99_ms: float
    speedup: float
    speedup_ci95: tuple[float, float]


def latencies(
    models: Mapping[str, Path],
    raw_N: Raw,
    batch: int,
    threads: int,
    repeats: int,
    reference: str,
) -> dict[str, Latency]:
    """Latency of each model in ONNX Runtime, a batch a call, over at least `repeats` runs.

    Raises:
        BadInput: a file is no ONNX model.
    """
    sessions = {name: session(path, threads) for name, path in models.items()}
    calls = {name: call(run, raw_N[:batch]) for name, run in sessions.items()}
    return compare(interleaved(calls, repeats), reference)


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of each timed run of every call, [R, B], with R * B at least `repeats` (itself at least 1).

    In a round every call has one turn of B runs in a row, in an order that rotates from round to round, so
    that whatever slows the machine for a while slows them all alike. Runs that warm up are not among
    the times; slow ones are.
    """
    block = max(1, min(BLOCK, repeats // ROUNDS))
    rounds = math.ceil(repeats / block)
    seconds = {name: np.empty((rounds, block)) for name in calls}
    order = list(calls)
    for row in range(rounds):
        order = order[1:] + order[:1]
        for name in order:
            call, times_B = calls[name], seconds[name][row]
            for _ in range(min(WARMUP, block)):
                call()
            for i in range(block):
                start = time.perf_counter()
                call()
                times_B[i] = time.perf_counter() - start
    return seconds


def compare(seconds: Mapping[str, NDArray[np.float64]], reference: str) -> dict[str, Latency]:
    """What the times of `interleaved` say of each call, and of its speed against `reference`.

    The intervals are percentile intervals of a bootstrap that draws whole rounds (Künsch 1989, "The
    jackknife and the bootstrap for general stationary observations", with rounds for blocks): runs in a row
    resemble each other, and drawn one by one they would promise too much. A speed-up compares the
    calls within a round, so that slow stretches of time cancel. The intervals tell how well this
    measurement knows its medians, not how another machine or day will differ.
    """
    rounds = len(seconds[reference])
    shares_R = np.full(rounds, 1 / rounds)
    counts_SR = np.random.default_rng(0).multinomial(rounds, shares_R, RESAMPLES).astype(np.int32)
    reference_R1 = np.median(seconds[reference], axis=1, keepdims=True)
    return {
        name: _latency(seconds_RB, reference_R1 / np.median(seconds_RB, axis=1, keepdims=True), counts_SR)
        for name, seconds_RB in seconds.items()
    }


def _latency(
    seconds_RB: NDArray[np.float64], speedup_R1: NDArray[np.float64], counts_SR: NDArray[np.int32]
) -> Latency:
    p50, p95, p99 = np.percentile(seconds_RB * 1e3, [50, 95, 99])
    return Latency(
        p50_ms=round(float(p50), 5),
        p50_ms_ci95=_median_interval(seconds_RB * 1e3, counts_SR),
        p95_ms=round(float(p95), 5),
        p99_ms=round(float(p99), 5),
        speedup=round(float(np.median(speedup_R1)), 5),
        speedup_ci95=_median_interval(speedup_R1, counts_SR),
    )


def _median_interval(values_RB: NDArray[np.float64], counts_SR: NDArray[np.int32]) -> tuple[float, float]:
    """95 % interval of the median of all values, where sample s holds row r `counts_SR[s, r]` times.

    The values are sorted once; in a sample the median stands where the running count passes the half.
    """
    order = values_RB.argsort(axis=None)
    sorted_values = values_RB.ravel()[order]
    running = counts_SR[:, order // values_RB.shape[1]].cumsum(axis=1, dtype=np.int32)
    middle = [(running > k).argmax(axis=1) for k in ((order.size - 1) // 2, order.size // 2)]
    medians_S = sorted_values[middle].mean(axis=0)
    low, high = np.percentile(medians_S, [2.5, 97.5])
    return round(float(low), 5), round(float(high), 5)

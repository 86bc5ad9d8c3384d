"""The harness that measures latencies, on calls of our own and on times that were made up."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.runtime.latency import BLOCK, ROUNDS, WARMUP, compare, interleaved


@pytest.mark.parametrize(
    ("repeats", "rounds", "block", "warmup"),
    [(1, 1, 1, 1), (62, 21, 3, WARMUP), (10 * ROUNDS * BLOCK, 10 * ROUNDS, BLOCK, WARMUP)],
)
def test_calls_take_turns_in_an_order_that_rotates_when_interleaved(
    repeats: int, rounds: int, block: int, warmup: int
) -> None:
    said: list[str] = []
    seconds = interleaved({name: lambda name=name: said.append(name) for name in "abc"}, repeats)
    assert all(times_RB.shape == (rounds, block) for times_RB in seconds.values())
    turns = [said[i] for i in range(0, len(said), warmup + block)]
    assert said == [name for name in turns for _ in range(warmup + block)]
    assert "".join(turns) == ("bca" + "cab" + "abc") * (rounds // 3) + ["", "bca", "bcacab"][rounds % 3]


def test_first_runs_of_a_turn_are_left_out_and_others_are_not_when_they_are_slow() -> None:
    runs = 0

    def call() -> None:
        nonlocal runs
        if runs % (WARMUP + 5) in (0, WARMUP - 1, WARMUP + 1):
            time.sleep(0.02)
        runs += 1

    times_RB = interleaved({"call": call, "other": lambda: None}, 5 * ROUNDS)["call"]
    assert times_RB.shape == (ROUNDS, 5)
    assert ((np.median(times_RB, axis=0) > 0.01) == [False, True, False, False, False]).all()
    assert times_RB[:, 1].min() > 0.01


def drifting(rounds: int = 200) -> NDArray[np.float64]:
    """Seconds, [rounds, BLOCK], whose runs in a row resemble each other."""
    draws = np.random.default_rng(0)
    level = draws.lognormal(0, 0.2, (rounds, 1))
    return 1e-3 * level * draws.lognormal(0, 0.02, (rounds, BLOCK))


def test_median_interval_equals_the_plain_bootstrap_when_rounds_are_resampled_one_by_one() -> None:
    seconds = drifting()
    draws = np.random.default_rng(1)
    plain = [np.median(seconds[draws.integers(0, 200, 200)]) for _ in range(4000)]
    latency = compare({"a": seconds}, "a")["a"]
    assert latency.p50_ms == pytest.approx(1e3 * np.median(seconds), abs=1e-5)
    assert latency.p50_ms_ci95 == pytest.approx(tuple(1e3 * np.percentile(plain, [2.5, 97.5])), rel=0.01)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_median_interval_is_that_of_a_single_round_when_there_is_one(block: int) -> None:
    seconds = np.array([[4e-3, 1e-3, 2e-3][:block]])
    middle = 1e3 * float(np.median(seconds))
    assert compare({"a": seconds}, "a")["a"].p50_ms_ci95 == pytest.approx((middle, middle))


def test_median_interval_is_wider_when_runs_in_a_row_resemble_each_other() -> None:
    together = drifting()
    apart = np.random.default_rng(1).permutation(together.ravel()).reshape(together.shape)
    widths = [np.ptp(compare({"a": seconds}, "a")["a"].p50_ms_ci95) for seconds in (together, apart)]
    assert widths[0] > 2.5 * widths[1]


def test_speedup_is_certain_when_both_drift_alike_and_medians_are_not() -> None:
    seconds = drifting()
    timed = compare({"dense": seconds, "small": seconds / 4}, "dense")
    assert (timed["small"].speedup, timed["small"].speedup_ci95) == (4.0, (4.0, 4.0))
    assert np.ptp(timed["small"].p50_ms_ci95) > 0.02 * timed["small"].p50_ms
    assert compare({"dense": seconds, "small": seconds / 4}, "small")["dense"].speedup == 0.25


def test_speedup_interval_holds_the_truth_about_as_often_as_it_says_when_repeated() -> None:
    draws = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        level = draws.lognormal(0, 0.3, (40, 1))  # of the machine, in a round
        turns = [level * draws.lognormal(0, 0.05, (40, 1)) * draws.lognormal(0, 0.05, (40, 5)) for _ in "ab"]
        low, high = compare({"a": 3 * turns[0], "b": turns[1]}, "a")["b"].speedup_ci95
        held += low <= 3 <= high
    assert 0.88 < held / 200 < 0.99


def test_outliers_stay_when_they_are_rare() -> None:
    seconds = np.full((200, BLOCK), 1e-3)
    seconds[::4, 0] = 1.0
    latency = compare({"a": seconds}, "a")["a"]
    assert (latency.p50_ms, latency.p95_ms, latency.p99_ms) == (1.0, 1.0, 1000.0)

"""The choice, and what is written of it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import SelectParams
from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import DENSE, Candidate, pareto_front, read_candidates
from tasks.core.reporting.choice import choose
from tasks.core.reporting.page import code_span
from tasks.core.runtime import promise
from tasks.core.runtime.session import predict, session
from tasks.select import select
from tests.builders import CANDIDATES, FINGERPRINT, Made, build


def chosen(
    rows: Iterable[Candidate], params: SelectParams, images: int = 6000
) -> tuple[Candidate, bool, str]:
    """The choice by so many validation images."""
    return choose(rows, params, Bar(params.max_drop_points, images))


def candidate(
    name: str, high: float = 0.0, ms: float = 1.0, size: int = 1000, drop: float = 0.0
) -> Candidate:
    return Candidate(
        name=name,
        accuracy=0.9 - drop / 100,
        drop_points=drop,
        drop_low=min(0.0, high),
        drop_high=high,
        mcnemar_p=0.5,
        val_accuracy=0.9 - drop / 100,
        val_drop_points=drop,
        val_drop_low=min(0.0, high),
        val_drop_high=high,
        val_drop_error=abs(high - drop) / 2,
        margin_points=20.0,
        margin_low=19.0,
        margin_high=21.0,
        size_bytes=size,
        size_compressed_bytes=size,
        sparsity=0.0,
        parameters=100,
        macs=1000,
        nodes_int8=0,
        nodes_fp32=3,
        p50_ms_b1_t1=ms,
        p50_ms_b64_t1=40 * ms,
        speedup_b1=2 / ms,
        speedup_b1_low=1.9 / ms,
        speedup_b1_high=2.1 / ms,
        speedup_b64=2 / ms,
    )


REFERENCE = candidate(DENSE, ms=2.0, size=5000)


def test_fastest_is_chosen_when_several_are_within_the_bar() -> None:
    rows = [REFERENCE, candidate("a", 0.9, 0.5, 3000), candidate("b", 0.4, 0.8, 1000)]
    best, passed, reason = chosen(rows, SelectParams())
    assert (best.name, passed) == ("a", True)
    assert "a is the fastest, at 0.500 ms" in reason and "2 of the 2 compressed ones do" in reason


def test_smaller_file_is_chosen_when_it_is_about_as_fast_as_the_fastest() -> None:
    rows = [
        REFERENCE,
        candidate("a", 0.9, 0.500, 3000),
        candidate("b", 0.4, 0.515, 1000),
        candidate("c", 0.4, 0.54, 500),
    ]
    best, passed, reason = chosen(rows, SelectParams())
    assert (best.name, passed) == ("b", True)
    assert "b is the smallest of those within 5 % of the fastest, at 0.515 ms" in reason


def test_smallest_is_chosen_when_the_objective_is_size() -> None:
    rows = [REFERENCE, candidate("a", 0.9, 0.5, 3000), candidate("b", 0.4, 0.8, 1000)]
    best, _, reason = chosen(rows, SelectParams(objective="smallest"))
    assert best.name == "b"
    assert "the smallest, at 1.00 kB" in reason


def test_upper_end_of_the_interval_decides_when_the_drop_itself_is_within() -> None:
    rows = [REFERENCE, candidate("a", 1.01, 0.1, drop=0.2), candidate("b", 1.0, 0.9, drop=0.9)]
    assert chosen(rows, SelectParams())[0].name == "b"


def test_examples_that_would_prove_it_are_said_when_a_faster_candidate_changes_too_many_answers() -> None:
    slower, unproven = candidate("a", 0.9, 0.9), candidate("b", 1.5, 0.1, drop=0.5)
    reason = chosen([REFERENCE, slower, unproven], SelectParams())[2]
    assert "b (20.0 times faster) lost 0.50 points" in reason
    assert "it takes some 24,000 of them, in place of 6,000, to prove" in reason
    assert "to prove" in chosen([REFERENCE, unproven], SelectParams())[2]
    lossy = candidate("b", 2.5, 0.1, drop=1.5)
    assert "to prove" not in chosen([REFERENCE, slower, lossy], SelectParams())[2]
    assert (
        "to prove" not in chosen([REFERENCE, replace(unproven, p50_ms_b1_t1=1.0), slower], SelectParams())[2]
    )


def test_dense_stays_and_the_closest_is_named_when_none_is_within_the_bar() -> None:
    rows = [candidate("a", 2.5, 0.1, drop=2.0), REFERENCE, candidate("b", 1.31, 0.2, drop=0.8)]
    best, passed, reason = chosen(rows, SelectParams())
    assert (best, passed) == (REFERENCE, False)
    assert "the closest, b, loses 0.80 on the validation examples, and 1.31 at the upper end" in reason


def test_dense_is_chosen_and_passes_when_it_is_the_fastest_within_the_bar() -> None:
    best, passed, reason = chosen([REFERENCE, candidate("a", 0.5, 3.0)], SelectParams())
    assert (best, passed) == (REFERENCE, True)
    assert reason.startswith(f"{DENSE} is the fastest") and "1 of the 1 compressed ones does" in reason


def test_dense_is_chosen_when_it_is_alone() -> None:
    assert chosen([REFERENCE], SelectParams()) == (REFERENCE, False, "dense-fp32 is the only candidate.")


def test_ties_are_broken_by_size_then_name_when_latencies_are_equal() -> None:
    rows = [candidate("c", ms=0.5, size=10), candidate("b", ms=0.5, size=10), candidate("a", ms=0.5, size=11)]
    for order in (rows, rows[::-1]):
        assert chosen([*order, REFERENCE], SelectParams())[0].name == "b"


numbers = st.floats(-5, 5)
rows_of = st.lists(
    st.builds(
        candidate,
        name=st.text("abc-0.5", min_size=1, max_size=8),
        high=numbers,
        ms=st.floats(0.01, 10),
        size=st.integers(1, 10**7),
    ),
    max_size=8,
    unique_by=lambda c: c.name,
)


@given(rows_of, st.just(0.0) | st.floats(0.01, 3), st.sampled_from(["fastest", "smallest"]))
def test_choice_is_within_the_bar_and_the_best_there_when_rows_are_any(
    rows: list[Candidate], bar: float, objective: Any
) -> None:
    params = SelectParams(max_drop_points=bar, objective=objective)
    best, passed, reason = chosen([REFERENCE, *rows], params, images=50_000)
    within = [c for c in [REFERENCE, *rows] if c.drop_high <= bar]
    if objective == "fastest":
        fastest = min(within, key=lambda c: c.p50_ms_b1_t1)
        within = [c for c in within if c.speedup_b1 >= 0.95 * fastest.speedup_b1]
    assert best in within
    assert best.size_bytes == min(c.size_bytes for c in within)
    assert passed == any(c.drop_high <= bar for c in rows)
    assert reason.endswith(".") and "\n" not in reason


@given(rows_of)
def test_front_holds_exactly_the_undominated_when_rows_are_any(rows: list[Candidate]) -> None:
    def beats(a: Candidate, b: Candidate) -> bool:
        better = (a.p50_ms_b1_t1, -a.accuracy) != (b.p50_ms_b1_t1, -b.accuracy)
        return better and a.p50_ms_b1_t1 <= b.p50_ms_b1_t1 and a.accuracy >= b.accuracy

    front = pareto_front([REFERENCE, *rows])
    wanted = [c for c in [REFERENCE, *rows] if not any(beats(o, c) for o in [REFERENCE, *rows])]
    assert {(c.p50_ms_b1_t1, c.accuracy) for c in front} == {(c.p50_ms_b1_t1, c.accuracy) for c in wanted}
    assert [c.p50_ms_b1_t1 for c in front] == sorted(c.p50_ms_b1_t1 for c in front)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("accuracy.json", ("dense-int8", "accuracy"), math.nan),
        ("accuracy.json", ("dense-int8", "drop_points_ci95"), [0.0, math.inf]),
        ("accuracy.json", ("dense-int8", "drop_points"), None),
        ("latency.json", ("candidates", "dense-int8", "b1_t1", "p50_ms"), math.nan),
        ("latency.json", ("candidates", "dense-int8", "b1_t1", "p50_ms"), 0.0),
        ("latency.json", ("candidates", "dense-int8", "b1_t1", "speedup"), 0.0),
        ("latency.json", ("candidates", "dense-int8", "b1_t1", "speedup_ci95"), [1.0, math.inf]),
    ],
)
def test_figures_are_refused_when_not_finite(
    tmp_path: Path, file: str, path: tuple[str, ...], value: object
) -> None:
    folders = build(tmp_path / "data")
    change(folders.select["evaluation"] / file, path, value)
    with pytest.raises(StageFailed, match="dense-int8"):
        read_candidates(folders.select["evaluation"])


def change(path: Path, keys: tuple[str, ...], value: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def test_missing_reference_is_refused_when_only_others_were_evaluated(tmp_path: Path) -> None:
    folders = build(tmp_path / "data", candidates=CANDIDATES[1:])
    with pytest.raises(StageFailed, match="dense-fp32, the reference, is missing"):
        read_candidates(folders.select["evaluation"])


def test_missing_evaluation_is_bad_input_when_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"accuracy\.json: no such file"):
        read_candidates(tmp_path)


def test_missing_latency_is_refused_when_a_candidate_was_not_timed(tmp_path: Path) -> None:
    folders = build(tmp_path / "data")
    path = folders.select["evaluation"] / "latency.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["candidates"]["dense-int8"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StageFailed, match="dense-int8: no dense-int8"):
        read_candidates(folders.select["evaluation"])


def test_old_latencies_are_refused_with_a_way_out_when_they_have_no_speedups(tmp_path: Path) -> None:
    folders = build(tmp_path / "data")
    old = {"p50_ms": 0.2, "p95_ms": 0.3, "p99_ms": 0.4}
    change(folders.select["evaluation"] / "latency.json", ("candidates", "dense-int8", "b1_t1"), old)
    with pytest.raises(StageFailed, match="dense-int8: no speedup_ci95: run evaluate again"):
        read_candidates(folders.select["evaluation"])


def test_metrics_for_git_are_few_and_round_when_a_candidate_is_chosen(tmp_path: Path) -> None:
    out = selected(tmp_path)
    exact = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    shown = json.loads((tmp_path / "data" / "metrics.json").read_text(encoding="utf-8"))
    assert shown == {
        "accuracy": round(exact["accuracy"], 4),
        "drop_points": round(exact["drop_points"], 2),
        "size_ratio": 3.6,
        "speedup": 3.2,
        "val_accuracy": round(shown["val_accuracy"], 4),
    }


def test_missing_model_is_refused_when_it_was_chosen(tmp_path: Path) -> None:
    folders = build(tmp_path / "data")
    (folders.select["candidates"] / "prune-0.5-fp32" / "model.onnx").unlink()
    with pytest.raises(StageFailed, match=r"prune-0\.5-fp32"):
        select(SelectParams(), out=tmp_path, **folders.select)


def selected(tmp_path: Path, params: SelectParams | None = None, **changes: Any) -> Path:
    folders, out = build(tmp_path / "data", **changes), tmp_path / "out"
    out.mkdir()
    select(params or SelectParams(), out=out, **folders.select)
    return out


def test_deliverable_is_whole_when_a_candidate_passes(tmp_path: Path) -> None:
    out = selected(tmp_path)
    source = tmp_path / "data" / "quantize" / "prune-0.5-fp32" / "model.onnx"
    assert (out / "model.onnx").read_bytes() == source.read_bytes()
    classes = json.loads((tmp_path / "data" / "ingest" / "dataset.json").read_text(encoding="utf-8"))[
        "classes"
    ]
    assert json.loads((out / "labels.json").read_text(encoding="utf-8")) == classes
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["selected"] == "prune-0.5-fp32"
    assert metrics["passed"] is True
    assert metrics["speedup_b1"] == pytest.approx(0.182 / 0.0571)
    assert metrics["speedup_b1_ci95"] == pytest.approx([0.988 * 0.182 / 0.0571, 1.012 * 0.182 / 0.0571])
    assert metrics["speedup_b64"] == pytest.approx(0.182 / 0.0571)
    assert metrics["mcnemar_p"] == pytest.approx(0.0278, abs=1e-4)
    assert metrics["size_ratio"] == pytest.approx(331_204 / 92_300)
    assert metrics["drop_points_ci95"] == pytest.approx([0.05, 0.87])
    with (out / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["candidate"] for r in rows if r["selected"] == "True"] == ["prune-0.5-fp32"]
    assert {r["candidate"] for r in rows if r["within_bar"] == "False"} == {
        "prune-0.625-fp32",
        "prune-0.625-int8",
    }
    assert list(rows[0]) == [
        *("candidate", "accuracy", "drop_points", "drop_low", "drop_high", "mcnemar_p"),
        *("val_accuracy", "val_drop_points", "val_drop_low", "val_drop_high", "val_drop_error"),
        *("margin_points", "margin_low", "margin_high"),
        *(
            "size_bytes",
            "size_compressed_bytes",
            "sparsity",
            "parameters",
            "macs",
            "nodes_int8",
            "nodes_fp32",
        ),
        *("p50_ms_b1_t1", "p50_ms_b64_t1", "speedup_b1", "speedup_b1_low", "speedup_b1_high", "speedup_b64"),
        *("size_ratio", "within_bar", "selected"),
    ]
    (row,) = (r for r in rows if r["selected"] == "True")
    assert [float(row[f"speedup_b1{end}"]) for end in ("", "_low", "_high")] == pytest.approx(
        [metrics["speedup_b1"], *metrics["speedup_b1_ci95"]]
    )


def test_card_has_the_figures_when_a_candidate_passes(tmp_path: Path) -> None:
    card = (selected(tmp_path) / "model_card.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    for figure in (
        "# `prune-0.5-fp32`",
        "91.85 %",
        "92.31 %",
        "0.46 (0.05 to 0.87)",
        "| 0.0571 ms | 0.182 ms |",
        "3.19\u00d7 (3.15\u00d7 to 3.23\u00d7)",
        "| McNemar's p of the difference on the test examples | 0.028 |",
        "**prune-0.5-fp32 can be shipped: 91.85 % of the test examples are right, 6.85 points more than by a random forest",
        "| More than random forest on reduced pixels, points (95 % interval) | 6.85 (6.05 to 7.65) | 7.31 (6.51 to 8.11) |",
        "| random forest | 85.00 % | 85.00 % |",
        "| The same, compressed (zlib, level 9) | 84.0 kB | 301 kB |",
        "| Zeros among the weights | 0.0 % | 0.0 % |",
        "| 1 example, 1 thread | 0.0571 (0.0568 to 0.0576) |",
        "92.3 kB (3.59\u00d7 smaller)",
        "Example CPU @ 2.60GHz",
        "integer dot products (VNNI): yes; 8-bit sums overflow: no",
        "modelpress check model.onnx",
        "5f" * 32,
        "modelpress predict model.onnx",
        "onnxruntime.InferenceSession",
        "uint8, [N, 28, 28, 1]",
        "lr: 0.142",
        "Found by tuning: `lr`, `width`",
    ):
        assert figure in card
    assert "{{" not in card and "None" not in card


def test_card_lists_the_nodes_by_reason_when_some_stay_in_floating_point(tmp_path: Path) -> None:
    card = (selected(tmp_path, candidates=CANDIDATES[:2]) / "model_card.md").read_text(encoding="utf-8")
    assert "17 nodes with weights in int8, 3 in fp32" in card
    assert "| depthwise | `Conv` | `conv2d_4, conv2d_9` |" in card
    assert "| last layer | `Gemm` | `linear` |" in card


def test_card_names_weaknesses_when_the_selected_model_has_some(tmp_path: Path) -> None:
    slow = Made("dense-int8", 0.05, 0.1, 0.3, 90_000, warning="int8 loses 3.1 points")
    other = Made("prune-0.5-int8", 0.6, 0.2, 0.1, 95_000, warning="it is another one")
    out = selected(tmp_path, SelectParams(objective="smallest"), candidates=(CANDIDATES[0], slow, other))
    limits = (
        (out / "model_card.md")
        .read_text(encoding="utf-8")
        .replace("\u00a0", " ")
        .partition("## Limits\n\n")[2]
    )
    assert limits.splitlines()[:2] == [
        "- dense-int8: int8 loses 3.1 points.",
        "- dense-int8 is slower than dense-fp32 at one image on one thread: 0.300 ms against 0.182 ms.",
    ]
    assert limits.splitlines()[2].startswith("- The figures are averages")
    assert "another one" not in limits


def test_card_gives_counts_alone_when_no_nodes_were_recorded(tmp_path: Path) -> None:
    folders = build(tmp_path / "data", candidates=CANDIDATES[:2])
    path = folders.select["evaluation"] / "accuracy.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for entry in content.values():
        del entry["nodes"]
    path.write_text(json.dumps(content), encoding="utf-8")
    select(SelectParams(), out=tmp_path, **folders.select)
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "17 nodes with weights in int8, 3 in fp32" in card
    assert "In fp32 because" not in card


def test_card_keeps_its_tables_when_class_names_are_hostile(tmp_path: Path) -> None:
    names = ["a|b", "`tick`", "two\nlines", "<b>"]
    card = (selected(tmp_path, classes=names) / "model_card.md").read_text(encoding="utf-8")
    for name in names:
        assert any(line.startswith(f"| {code_span(name)} | ") for line in card.splitlines())


def test_dense_is_delivered_when_none_passes(tmp_path: Path) -> None:
    bad = (Made(DENSE), Made("prune-0.5-fp32", 1.4, 0.4, 0.05))
    out = selected(tmp_path, candidates=bad)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["selected"], metrics["passed"]) == (DENSE, False)
    assert (metrics["speedup_b1"], metrics["size_ratio"], metrics["drop_points"]) == (1.0, 1.0, 0.0)
    assert "prune-0.5-fp32, loses 1.40 on the validation examples, and 1.80" in metrics["reason"]
    assert "prune-0.5-fp32, loses 1.40" in (out / "model_card.md").read_text(encoding="utf-8")


def test_promise_is_what_was_measured_when_a_candidate_passes(tmp_path: Path) -> None:
    out = selected(tmp_path)
    reference = tmp_path / "data" / "quantize" / DENSE / "model.onnx"
    assert (out / "reference.onnx").read_bytes() == reference.read_bytes()
    promised, sample = promise.read(out / "model.onnx")
    assert (promised.p50_ms, promised.reference_p50_ms) == (0.0571, 0.182)
    assert promised.speedup_b1 == pytest.approx(0.182 / 0.0571)
    assert (promised.max_drop_points, promised.fingerprint) == (1.0, FINGERPRINT)
    predicted_N = predict(session(out / "model.onnx", 1), sample.raw_N).argmax(1)
    assert (sample.predicted_N == predicted_N).all()
    assert promised.accuracy == (predicted_N == sample.labels_N).mean()
    test = tmp_path / "data" / "ingest"
    assert (sample.raw_N == np.load(test / "test_images.npy")).all(), "all, as they are few"
    assert (sample.labels_N == np.load(test / "test_labels.npy")).all()


def test_reference_is_the_model_when_dense_is_delivered(tmp_path: Path) -> None:
    out = selected(tmp_path, candidates=(Made(DENSE), Made("prune-0.5-fp32", 1.4, 0.4, 0.05)))
    assert (out / "reference.onnx").read_bytes() == (out / "model.onnx").read_bytes()
    assert promise.read(out / "model.onnx")[0].speedup_b1 == 1.0


def test_missing_reference_is_refused_when_another_model_was_chosen(tmp_path: Path) -> None:
    folders = build(tmp_path / "data")
    (folders.select["candidates"] / DENSE / "model.onnx").unlink()
    with pytest.raises(StageFailed, match=f"{DENSE}.*no such file"):
        select(SelectParams(), out=tmp_path, **folders.select)


def test_outputs_are_the_same_bytes_when_run_twice(tmp_path: Path) -> None:
    one, two = selected(tmp_path / "one"), selected(tmp_path / "two")
    assert sorted(f.name for f in one.iterdir()) == sorted(f.name for f in two.iterdir())
    assert all(f.read_bytes() == (two / f.name).read_bytes() for f in one.iterdir())


def test_choice_has_not_seen_the_test_images_when_they_would_say_otherwise() -> None:
    lucky = replace(candidate("a", high=3.0, ms=0.2), drop_points=-1.0, drop_high=0.0)
    assert chosen([REFERENCE, lucky], SelectParams())[0] == REFERENCE
    unlucky = replace(candidate("a", ms=0.2), drop_points=2.0, drop_high=3.0)
    assert chosen([REFERENCE, unlucky], SelectParams())[0] == unlucky


def test_choice_says_how_it_was_made_when_validation_images_are_few() -> None:
    near = replace(candidate("a", high=6.0, ms=0.2), val_drop_points=0.9, val_drop_error=2.5)
    best, passed, reason = chosen([REFERENCE, near], SelectParams(), images=27)
    assert (best, passed) == (near, True)
    assert "on the 27 validation examples, too few for an interval to decide" in reason
    lossy = replace(near, val_drop_points=1.1)
    assert chosen([REFERENCE, lossy], SelectParams(), images=27)[0] == REFERENCE


def test_nothing_is_praised_when_the_dense_model_knows_nothing(tmp_path: Path) -> None:
    out = selected(tmp_path, simple=0.95)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["ships"], metrics["knows"], metrics["passed"]) == (False, False, True)
    card = (out / "model_card.md").read_text(encoding="utf-8")
    assert card.splitlines()[2].startswith(
        "**Do not ship this: the dense model knows no more than a random forest"
    )

"""Choose the model to ship, and write it with all that its users need."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_json, write_text
from tasks.core.config.cli import main
from tasks.core.config.params import SelectParams
from tasks.core.data.dataset import open_dataset
from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import (
    DENSE,
    DENSE_WEIGHTS,
    TIMED,
    Candidate,
    candidate_folder,
    float_nodes,
    number,
    read_candidates,
    read_result,
    read_table,
    table_text,
)
from tasks.core.reporting.page import NBSP, milliseconds, points, render, settings_of, size
from tasks.core.reporting.verdict import Verdict, doubt, judge, rule
from tasks.core.reporting.weaknesses import weaknesses
from tasks.core.runtime import promise

AS_FAST = 0.05  # share of the largest speed-up that may be missing: nobody notices it, and measuring it again may turn it


def select(
    params: SelectParams,
    evaluation: Path,
    candidates: Path,
    press: Path,
    baselines: Path,
    data: Path,
    train: Path,
    tune: Path,
    settings: Path,
    metrics: Path,
    out: Path,
) -> None:
    """Choose the fastest (or smallest) candidate within the bar and write the deliverable.

    Args:
        params: the bar and the objective.
        evaluation: data/evaluate, the figures of every candidate.
        candidates: data/quantize, a folder with model.onnx a candidate.
        press: data/press, with the candidates of the search.
        baselines: data/baselines, which a model must beat to be worth shipping.
        data: data/ingest, for the model card and the sample.
        train: data/train, for the model card and the dense network's weights.
        tune: data/tune, whose best.yaml replaces values of `train`.
        settings: params.yaml, for the model card.
        metrics: where a few rounded figures go, for `dvc metrics` and `dvc exp`; they travel in git.
        out: model.onnx, labels.json, model_card.md, metrics.json and candidates.csv; what another machine
            checks the model with, see tasks.core.runtime.promise.

    Raises:
        BadInput: a file of another stage is missing.
        StageFailed: a figure or the chosen model is missing, or a figure is not finite.
    """
    rows = read_candidates(evaluation)
    dense = rows[DENSE]
    dataset, trained = read_result(data / "dataset.json"), read_result(train / "metrics.json")
    bar = Bar(params.max_drop_points, sum(dataset["counts"]["val"].values()))
    selected, passed, reason = choose(rows.values(), params, bar)
    folder = candidate_folder(selected.name, candidates, press)
    latency = read_result(evaluation / "latency.json")
    _copy(folder / "model.onnx", out / promise.MODEL)
    _copy(candidate_folder(DENSE, candidates, press) / "model.onnx", out / promise.REFERENCE)
    _copy(train / "model.safetensors", out / DENSE_WEIGHTS)
    accuracy = read_result(evaluation / "accuracy.json")
    below = accuracy[selected.name]["unsure"]["below"]
    _promise(selected, dense, params, latency["fingerprint"], below, data, out)
    simple = read_result(baselines / "metrics.json")
    used, tuned = settings_of(settings, tune)
    verdict = judge(
        selected,
        dense,
        passed,
        reason,
        bar,
        unknown=accuracy[selected.name]["no_better_than_chance"],
        baselines=simple,
        test_examples=sum(dataset["counts"]["test"].values()),
        train_accuracy=number(read_table(train / "history.csv")[-1]["train_accuracy"]),
        val_accuracy=trained["val_accuracy"],
        quick=used["recipe"]["budget"] == "quick",
    )
    figures = {**_figures(selected, dense, passed, reason, params, bar), **_words(verdict, simple)}
    write_json(out / "labels.json", dataset["classes"])
    write_json(out / "metrics.json", figures)
    table = [_row(c, dense, bar, c == selected) for c in rows.values()]
    write_text(out / "candidates.csv", table_text(table))
    card = render(
        "model_card.md.j2",
        metrics=figures,
        rule=rule(bar),
        baselines=simple,
        selected=selected,
        dense=dense,
        table=table,
        detail=accuracy[selected.name],
        doubt=doubt(accuracy[selected.name]["unsure"]),
        float_nodes=float_nodes(accuracy[selected.name].get("nodes", [])),
        weaknesses=weaknesses(selected.name, rows, accuracy[selected.name]),
        timed=latency["candidates"][selected.name],
        fingerprint=latency["fingerprint"],
        export=read_result(folder / "metrics.json"),
        trained=trained,
        dataset=dataset,
        texts=dataset.get("kind") == "texts",
        tuned=tuned,
        settings_yaml=yaml.safe_dump(used, sort_keys=False, allow_unicode=True),
        timed_settings=TIMED,
        worst=min(dataset["classes"], key=lambda name: accuracy[selected.name]["recall"][name]),
        sha256=hashlib.sha256((out / promise.MODEL).read_bytes()).hexdigest(),
    )
    write_text(out / "model_card.md", card)
    write_json(metrics, _rounded(figures, trained["val_accuracy"]))
    print(f"select: {verdict.sentence}", *verdict.advice, sep="\n  ", flush=True)
    print(f"select: {selected.name}; why is in {out / 'model_card.md'}", flush=True)


def choose(candidates: Iterable[Candidate], params: SelectParams, bar: Bar) -> tuple[Candidate, bool, str]:
    """The candidate to ship, whether any compressed one is within the bar, and why in one sentence.

    What was measured on the test examples plays no part. The reference competes too, as its drop is 0 by definition; it
    is also the answer when no other candidate is good enough. Of those that are about as fast as the fastest, the
    smallest is taken.
    """
    rows = list(candidates)
    dense = next(c for c in rows if c.name == DENSE)
    compressed = [c for c in rows if c.name != DENSE]
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
        return dense, False, reason
    rank = _RANKS[params.objective]
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
    return best, True, reason.replace(NBSP, " ")


_RANKS: dict[str, Callable[[Candidate], tuple[Any, ...]]] = {
    "fastest": lambda c: (c.p50_ms_b1_t1, c.size_bytes, c.name),
    "smallest": lambda c: (c.size_bytes, c.name),
}


def _excess(candidate: Candidate, params: SelectParams) -> str:
    """How a candidate misses max_latency_ms or max_size_kb, in words; nothing if it does not."""
    if params.max_latency_ms is not None and candidate.p50_ms_b1_t1 > params.max_latency_ms:
        return f"takes {milliseconds(candidate.p50_ms_b1_t1, unit=True)}, above {params.max_latency_ms:g} ms"
    if params.max_size_kb is not None and candidate.size_bytes > params.max_size_kb * 1e3:
        return f"has {size(candidate.size_bytes)}, above {params.max_size_kb:g} kB"
    return ""


def _promise(
    selected: Candidate,
    dense: Candidate,
    params: SelectParams,
    fingerprint: dict[str, Any],
    unsure_below: float | None,
    data: Path,
    out: Path,
) -> None:
    """What another machine checks the model with."""
    promise.write(
        out,
        open_dataset(data).test,
        p50_ms=selected.p50_ms_b1_t1,
        reference_p50_ms=dense.p50_ms_b1_t1,
        speedup_b1=selected.speedup_b1,
        max_drop_points=params.max_drop_points,
        fingerprint=fingerprint,
        unsure_below=unsure_below,
    )


def _copy(source: Path, target: Path) -> None:
    """Copy what another stage wrote. Raises StageFailed."""
    if not source.is_file():
        raise StageFailed(f"{source}: no such file: run its stage again")
    shutil.copyfile(source, target)


def _figures(
    selected: Candidate, dense: Candidate, passed: bool, reason: str, params: SelectParams, bar: Bar
) -> dict[str, Any]:
    return {
        "selected": selected.name,
        "accuracy": selected.accuracy,
        "accuracy_dense": dense.accuracy,
        "drop_points": selected.drop_points,
        "drop_points_ci95": [selected.drop_low, selected.drop_high],
        "mcnemar_p": selected.mcnemar_p,
        "margin_points": selected.margin_points,
        "margin_points_ci95": [selected.margin_low, selected.margin_high],
        "speedup_b1": selected.speedup_b1,
        "speedup_b1_ci95": [selected.speedup_b1_low, selected.speedup_b1_high],
        "speedup_b64": selected.speedup_b64,
        "size_ratio": dense.size_bytes / selected.size_bytes,
        "val_drop_points": selected.val_drop_points,
        "val_drop_points_ci95": [selected.val_drop_low, selected.val_drop_high],
        "max_drop_points": bar.max_drop_points,
        "val_examples": bar.examples,
        "objective": params.objective,
        "passed": passed,
        "reason": reason,
    }


def _words(verdict: Verdict, baselines: Mapping[str, Any]) -> dict[str, Any]:
    best = baselines["best"]
    return {
        "ships": verdict.ships,
        "knows": verdict.knows,
        "verdict": verdict.sentence,
        "advice": verdict.advice,
        "baseline": best,
        "accuracy_baseline": baselines["accuracy"][best]["test"],
    }


def _rounded(figures: Mapping[str, Any], val_accuracy: float) -> dict[str, float]:
    """What `dvc metrics` shows, in a terminal's width: of the selected model on the test examples, and how accurate the
    dense one was on the validation examples."""
    return {
        "accuracy": round(figures["accuracy"], 4),
        "drop_points": round(figures["drop_points"], 2),
        "size_ratio": round(figures["size_ratio"], 1),
        "speedup": round(figures["speedup_b1"], 1),
        "val_accuracy": round(val_accuracy, 4),
    }


def _row(candidate: Candidate, dense: Candidate, bar: Bar, selected: bool) -> dict[str, Any]:
    figures = {"candidate": candidate.name, **vars(candidate)}
    del figures["name"]
    return {
        **figures,
        "size_ratio": dense.size_bytes / candidate.size_bytes,
        "within_bar": bar.passes(candidate.val_loss),
        "selected": selected,
    }


if __name__ == "__main__":
    main(select)

"""Choose the model to ship, and write it with all that its users need."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_json, write_text
from tasks.core.config.cli import main
from tasks.core.config.params import SelectParams
from tasks.core.data.dataset import Dataset, open_dataset
from tasks.core.data.inputs import TextInput
from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import (
    DENSE,
    DENSE_NETWORK,
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
from tasks.core.reporting.choice import choose
from tasks.core.reporting.page import render, settings_of
from tasks.core.reporting.verdict import Verdict, doubt, judge, rule
from tasks.core.reporting.weaknesses import weaknesses
from tasks.core.runtime import promise
from tasks.core.runtime.session import fingerprint, predict, session


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
        out: model.onnx, labels.json, model_card.md, metrics.json and candidates.csv, of texts words.json; what another machine
            checks the model with, see tasks.core.runtime.promise.

    Raises:
        BadInput: a file of another stage is missing.
        StageFailed: a figure or the chosen model is missing, or a figure is not finite.
    """
    rows = read_candidates(evaluation)
    dense = rows[DENSE]
    described, trained = read_result(data / "dataset.json"), read_result(train / "metrics.json")
    bar = Bar(params.max_drop_points, sum(described["counts"]["val"].values()))
    selected, passed, reason = choose(rows.values(), params, bar)
    folder = candidate_folder(selected.name, candidates, press)
    latency, accuracy = (read_result(evaluation / f"{name}.json") for name in ("latency", "accuracy"))
    detail = accuracy[selected.name]
    _copy_models(folder, candidate_folder(DENSE, candidates, press), train, out)
    dataset = open_dataset(data)
    _promise(selected, dense, params, latency["fingerprint"], detail["unsure"]["below"], dataset, out)
    simple = read_result(baselines / "metrics.json")
    used, tuned = settings_of(settings, tune)
    verdict = judge(
        selected,
        dense,
        passed,
        reason,
        bar,
        unknown=detail["no_better_than_chance"],
        baselines=simple,
        test_examples=sum(described["counts"]["test"].values()),
        train_accuracy=number(read_table(train / "history.csv")[-1]["train_accuracy"]),
        val_accuracy=trained["val_accuracy"],
        quick=used["recipe"]["budget"] == "quick",
    )
    figures = {**_figures(selected, dense, passed, reason, params, bar), **_judged(verdict, simple)}
    write_json(out / "labels.json", dataset.classes)
    write_json(out / "metrics.json", figures)
    table = [_row(c, dense, bar, c == selected) for c in rows.values()]
    write_text(out / "candidates.csv", table_text(table))
    card = render(
        "model_card.md.j2",
        **_of_the_model(selected, detail, latency, out),
        metrics=figures,
        rule=rule(bar),
        baselines=simple,
        selected=selected,
        dense=dense,
        table=table,
        weaknesses=weaknesses(selected.name, rows, detail),
        export=read_result(folder / "metrics.json"),
        trained=trained,
        dataset=described,
        words=_words(dataset, out),
        tuned=tuned,
        settings_yaml=yaml.safe_dump(used, sort_keys=False, allow_unicode=True),
    )
    write_text(out / "model_card.md", card)
    write_json(metrics, _rounded(figures, trained["val_accuracy"]))
    print(f"select: {verdict.sentence}", *verdict.advice, sep="\n  ", flush=True)
    print(f"select: {selected.name}; why is in model_card.md, beside the model", flush=True)


def _copy_models(selected: Path, reference: Path, train: Path, out: Path) -> None:
    """The file to ship, the one that it is compared with, and the dense network for others to start or to learn from."""
    _copy(selected / "model.onnx", out / promise.MODEL)
    _copy(reference / "model.onnx", out / promise.REFERENCE)
    _copy(train / "model.safetensors", out / DENSE_WEIGHTS)
    _copy(train / "model.json", out / DENSE_NETWORK)


def _of_the_model(
    selected: Candidate, detail: dict[str, Any], latency: dict[str, Any], out: Path
) -> dict[str, Any]:
    """What the card says of the file that was selected."""
    return {
        "detail": detail,
        "doubt": doubt(detail["unsure"]),
        "float_nodes": float_nodes(detail.get("nodes", [])),
        "worst": min(detail["recall"], key=detail["recall"].__getitem__),
        "timed": latency["candidates"][selected.name],
        "timed_settings": TIMED,
        "fingerprint": latency["fingerprint"],
        "sha256": hashlib.sha256((out / promise.MODEL).read_bytes()).hexdigest(),
    }


def _words(dataset: Dataset, out: Path) -> dict[str, list[dict[str, Any]]] | None:
    """The words by which the selected model knows each class, also written to words.json; None where it reads no texts."""
    if not isinstance(dataset.input, TextInput):
        return None
    from tasks.core.evaluation.words import words_of_classes  # with onnx, which images do not need

    said = partial(predict, session(out / promise.MODEL, fingerprint()["threads"]))
    words = words_of_classes(said, np.asarray(dataset.val.raw_N), dataset.classes)
    write_json(out / "words.json", words)
    return words


def _promise(
    selected: Candidate,
    dense: Candidate,
    params: SelectParams,
    fingerprint: dict[str, Any],
    unsure_below: float | None,
    dataset: Dataset,
    out: Path,
) -> None:
    """What another machine checks the model with."""
    promise.write(
        out,
        dataset.test,
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


def _judged(verdict: Verdict, baselines: Mapping[str, Any]) -> dict[str, Any]:
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

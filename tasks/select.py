"""Choose the model to ship, and write it with all that its users need."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tasks.core import promise
from tasks.core.candidates import (
    DENSE,
    TIMED,
    Candidate,
    float_nodes,
    read_candidates,
    read_result,
    table_text,
)
from tasks.core.cli import main
from tasks.core.data import open_dataset
from tasks.core.errors import StageFailed
from tasks.core.files import write_json, write_text
from tasks.core.page import NBSP, milliseconds, points, render, settings_of, size
from tasks.core.params import SelectParams


def select(
    params: SelectParams,
    evaluation: Path,
    candidates: Path,
    data: Path,
    train: Path,
    tune: Path,
    settings: Path,
    out: Path,
) -> None:
    """Choose the fastest (or smallest) candidate within the bar and write the deliverable.

    Args:
        params: the bar and the objective.
        evaluation: data/evaluate, the figures of every candidate.
        candidates: data/quantize, a folder with model.onnx a candidate.
        data: data/ingest, for the model card and the sample.
        train: data/train, for the model card.
        tune: data/tune, whose best.yaml replaces values of `train`.
        settings: params.yaml, for the model card.
        out: model.onnx, labels.json, model_card.md, metrics.json and candidates.csv; what another machine
            checks the model with, see tasks.core.promise.

    Raises:
        BadInput: a file of another stage is missing.
        StageFailed: a figure or the chosen model is missing, or a figure is not finite.
    """
    rows = read_candidates(evaluation)
    dense = rows[DENSE]
    selected, passed, reason = choose(rows.values(), params)
    model = _copy(candidates, selected.name, out / promise.MODEL)
    _copy(candidates, DENSE, out / promise.REFERENCE)
    dataset = read_result(data / "dataset.json")
    metrics = _metrics(selected, dense, passed, reason, params)
    write_json(out / "labels.json", dataset["classes"])
    write_json(out / "metrics.json", metrics)
    table = [_row(c, dense, params, c == selected) for c in rows.values()]
    write_text(out / "candidates.csv", table_text(table))
    latency = read_result(evaluation / "latency.json")
    promise.write(
        out,
        open_dataset(data).test,
        p50_ms=selected.p50_ms_b1_t1,
        reference_p50_ms=dense.p50_ms_b1_t1,
        speedup_b1=selected.speedup_b1,
        max_drop_points=params.max_drop_points,
        fingerprint=latency["fingerprint"],
    )
    used, tuned = settings_of(settings, tune)
    accuracy = read_result(evaluation / "accuracy.json")
    card = render(
        "model_card.md.j2",
        metrics=metrics,
        selected=selected,
        dense=dense,
        table=table,
        detail=accuracy[selected.name],
        float_nodes=float_nodes(accuracy[selected.name].get("nodes", [])),
        timed=latency["candidates"][selected.name],
        fingerprint=latency["fingerprint"],
        export=read_result(candidates / selected.name / "metrics.json"),
        trained=read_result(train / "metrics.json"),
        dataset=dataset,
        tuned=tuned,
        settings_yaml=yaml.safe_dump(used, sort_keys=False, allow_unicode=True),
        timed_settings=TIMED,
        worst=min(dataset["classes"], key=lambda name: accuracy[selected.name]["recall"][name]),
        sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
    )
    write_text(out / "model_card.md", card)
    print(reason, flush=True)


def choose(candidates: Iterable[Candidate], params: SelectParams) -> tuple[Candidate, bool, str]:
    """The candidate to ship, whether any compressed one is within the bar, and why in one sentence.

    The reference competes too, as its drop is 0 by definition; it is also the answer when no other
    candidate is good enough. Equals are told apart by size, then by name.
    """
    rows = list(candidates)
    dense = next(c for c in rows if c.name == DENSE)
    compressed = [c for c in rows if c.name != DENSE]
    passing = [c for c in compressed if c.within(params.max_drop_points)]
    bar = f"{points(params.max_drop_points)} points"
    if not compressed:
        return dense, False, f"{DENSE} is the only candidate."
    if not passing:
        near = min(compressed, key=lambda c: (c.drop_high, c.drop_points, c.name))
        reason = (
            f"No compressed candidate is within the bar of {bar}: the closest, {near.name}, loses "
            f"{points(near.drop_points)}, and {points(near.drop_high)} at the upper end of the 95 % "
            f"interval; so {DENSE} stays."
        )
        return dense, False, reason
    if params.objective == "fastest":
        best = min([dense, *passing], key=lambda c: (c.p50_ms_b1_t1, c.size_bytes, c.name))
        figure = milliseconds(best.p50_ms_b1_t1, unit=True)
    else:
        best = min([dense, *passing], key=lambda c: (c.size_bytes, c.name))
        figure = size(best.size_bytes)
    reason = (
        f"{best.name} is the {params.objective}, at {figure}, of the models that lose at most {bar} of "
        f"accuracy at the upper end of the 95 % interval ({len(passing)} of the {len(compressed)} "
        f"compressed ones {'does' if len(passing) == 1 else 'do'})."
    )
    return best, True, reason.replace(NBSP, " ")


def _copy(candidates: Path, name: str, target: Path) -> Path:
    """Copy the model of candidate `name` to `target`; where it was. Raises StageFailed."""
    model = candidates / name / "model.onnx"
    if not model.is_file():
        raise StageFailed(f"{model}: no such file, though {name} was evaluated: run quantize again")
    shutil.copyfile(model, target)
    return model


def _metrics(
    selected: Candidate, dense: Candidate, passed: bool, reason: str, params: SelectParams
) -> dict[str, Any]:
    return {
        "selected": selected.name,
        "accuracy": selected.accuracy,
        "accuracy_dense": dense.accuracy,
        "drop_points": selected.drop_points,
        "drop_points_ci95": [selected.drop_low, selected.drop_high],
        "mcnemar_p": selected.mcnemar_p,
        "speedup_b1": selected.speedup_b1,
        "speedup_b1_ci95": [selected.speedup_b1_low, selected.speedup_b1_high],
        "speedup_b64": selected.speedup_b64,
        "size_ratio": dense.size_bytes / selected.size_bytes,
        "max_drop_points": params.max_drop_points,
        "objective": params.objective,
        "passed": passed,
        "reason": reason,
    }


def _row(candidate: Candidate, dense: Candidate, params: SelectParams, selected: bool) -> dict[str, Any]:
    return {
        "candidate": candidate.name,
        "accuracy": candidate.accuracy,
        "drop_points": candidate.drop_points,
        "drop_low": candidate.drop_low,
        "drop_high": candidate.drop_high,
        "mcnemar_p": candidate.mcnemar_p,
        "size_bytes": candidate.size_bytes,
        "size_compressed_bytes": candidate.size_compressed_bytes,
        "sparsity": candidate.sparsity,
        "parameters": candidate.parameters,
        "macs": candidate.macs,
        "nodes_int8": candidate.nodes_int8,
        "nodes_fp32": candidate.nodes_fp32,
        "p50_ms_b1_t1": candidate.p50_ms_b1_t1,
        "p50_ms_b64_t1": candidate.p50_ms_b64_t1,
        "speedup_b1": candidate.speedup_b1,
        "speedup_b1_low": candidate.speedup_b1_low,
        "speedup_b1_high": candidate.speedup_b1_high,
        "speedup_b64": candidate.speedup_b64,
        "size_ratio": dense.size_bytes / candidate.size_bytes,
        "within_bar": candidate.within(params.max_drop_points),
        "selected": selected,
    }


if __name__ == "__main__":
    main(select)

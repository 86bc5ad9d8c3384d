"""Search how to compress: which blocks leave, which channels of each group, and what is quantized.

Designs are tried untrained, about one a second, by accuracy, measured latency and size; the search ends when
the front has stopped growing. Of the front the fastest (or smallest) design that is within the bar untrained becomes a
candidate; a better one is then sought by bisection, where each step is a fine-tuning, and all that were fine-tuned become
candidates, too.
"""

from __future__ import annotations

import shutil
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from tasks.core.augmentation.augment import augment_of
from tasks.core.common.errors import StageFailed
from tasks.core.common.files import fingerprint, read_json, write_json
from tasks.core.common.journal import cut_off
from tasks.core.common.kept import kept
from tasks.core.common.progress import Progress
from tasks.core.compression.designs import Bench, Design, sensitivity
from tasks.core.compression.search import (
    ask,
    front,
    go_on,
    merit,
    open_study,
    sought,
    stalled,
    suggest,
    tell,
    volumes,
)
from tasks.core.compression.workshop import Pressed, Workshop
from tasks.core.config.cli import main
from tasks.core.config.compression_params import PressParams
from tasks.core.config.params import SelectParams
from tasks.core.config.params_file import Pipeline, load_pipeline
from tasks.core.data.dataset import open_dataset
from tasks.core.evaluation.candidates import quantized
from tasks.core.models.saved import load_model
from tasks.core.quantization.source import Source
from tasks.core.runtime.graphs import load_graph


def press(
    params: PressParams,
    model: Path,
    candidates: Path,
    data: Path,
    policy: Path,
    settings: Path,
    journal: Path,
    out: Path,
) -> None:
    """Write trials.csv, sensitivity.csv, metrics.json and a folder a candidate.

    Args:
        model: folder of the dense model, which is also the teacher.
        candidates: data/quantize; a design that is no better than one of them within the bar is not trained.
        data: the ingested data set.
        policy: policy.json of augment.
        settings: params.yaml, whose sections `prune`, `quantize` and `select` say how designs are trained
            and quantized, and what is good enough.
        journal: a folder that outlives the run: a search goes on from here, one that was killed too.

    Raises:
        StageFailed: the network cannot be pruned, or no design meets the constraints.
    """
    if not params.trials:
        _write_nothing(out)
        return
    asked = load_pipeline(settings)
    network, spec = load_model(model)
    dataset, resolved = open_dataset(data, spec.sampling), read_json(policy)
    augment = augment_of(resolved, asked.prune.augment_strength)
    source = Source(asked.quantize, dataset, load_graph(model))
    others = [candidates / name / "model.onnx" for name in quantized(asked)]
    bench = Bench(network, source, params.criteria, asked.prune.round_to, params.images, params.seed)
    asked = asked.model_copy(update={"select": sought(params, asked.select, bench)})
    with kept(journal, _key(asked, dataset.digest, resolved, bench.dense.hex())) as folder:
        rows = _sensitivity(params, asked.select, bench, folder / "sensitivity.json")
        study = open_study(params, asked.select, bench, rows, folder / "trials.log")
        with Progress("press", params.trials + params.finetunes * asked.prune.epochs) as progress:
            _search(study, params, asked, bench, progress)
            best = front(study, asked.select)
            if not best:
                raise StageFailed("no design meets select.max_latency_ms and select.max_size_kb: raise them")
            workshop = Workshop(asked, augment, bench, spec, folder, progress)
            made = workshop.candidates(best, params.finetunes, workshop.reached(others))
        for number, candidate in enumerate(made, 1):
            shutil.copytree(candidate.folder, out / str(number))
    _write(study, asked, rows, made, len(bench.dense), out)


def _key(asked: Pipeline, *given: Any) -> str:
    """What searches share that go on from each other: with another budget or another bar, what was tried and trained
    is used again."""
    return fingerprint(
        asked.press.model_dump(exclude={"trials", "patience", "finetunes"}),
        asked.prune.model_dump(exclude={"ratios", "relu"}),
        asked.quantize.model_dump(exclude={"schemes"}),
        [field.name for field in fields(Design)],
        Design({}, "", int8=False).scheme,
        *given,
    )


def _sensitivity(params: PressParams, select: SelectParams, bench: Bench, path: Path) -> list[dict[str, Any]]:
    """The rows of `designs.sensitivity`, from `path` where a run that was killed left them."""
    if not params.sensitivity:
        return []
    if not path.exists():
        total = 1 + len(bench.groups.prunable) * len(params.sensitivity) + len(bench.blocks)
        with Progress("sensitivity", total) as progress:
            wanted = partial(merit, select=select)
            write_json(path, sensitivity(bench, params.criteria[0], params.sensitivity, wanted, progress))
    rows: list[dict[str, Any]] = read_json(path)
    return rows


def _search(
    study: optuna.Study, params: PressParams, asked: Pipeline, bench: Bench, progress: Progress
) -> None:
    pending = cut_off(study)
    done = len(study.trials) - len(pending) - _waiting(study)
    if done:
        progress.reach(done, "from the journal")
    while done < params.trials and not stalled(volumes(study, asked.select), params.patience):
        trial = go_on(study, params, pending.pop(0)) if pending else ask(study, params)
        design = suggest(trial, params, bench)
        worth = bench.worth(design)
        tell(study, trial, worth, asked.select)
        done += 1
        progress.step(
            f"trial {trial.number} {worth.accuracy:.2%} untrained, {worth.speedup:.2f} times faster, "
            f"{worth.size_bytes / 1e3:.0f} kB ({design.criterion}, {design.scheme})"
        )
    if done < params.trials:
        progress.reach(params.trials, f"the front has not grown for {params.patience} trials")


def _waiting(study: optuna.Study) -> int:
    return sum(trial.state == optuna.trial.TrialState.WAITING for trial in study.trials)


def _write(
    study: optuna.Study,
    asked: Pipeline,
    rows: list[dict[str, Any]],
    made: list[Pressed],
    dense_bytes: int,
    out: Path,
) -> None:
    best = {trial.number for trial in front(study, asked.select)}
    names = {candidate.trial.number: f"press-{i}" for i, candidate in enumerate(made, 1)}
    grown = volumes(study, asked.select)
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    table = [
        {
            "number": trial.number,
            "state": "complete",
            **trial.user_attrs["worth"],
            "size_ratio": dense_bytes / trial.user_attrs["worth"]["size_bytes"],
            "hypervolume": volume,
            "front": trial.number in best,
            "candidate": names.get(trial.number, ""),
            **trial.params,
        }
        for trial, volume in zip(complete, grown, strict=True)
    ]
    pd.DataFrame(table).to_csv(out / "trials.csv", index=False, lineterminator="\n")
    columns = ["group", "ratio", "int8", "accuracy", "latency_ms", "speedup", "size_bytes"]
    pd.DataFrame(rows, columns=columns).to_csv(out / "sensitivity.csv", index=False, lineterminator="\n")
    write_json(
        out / "metrics.json",
        {
            "trials": len(complete),
            "front": len(best),
            "hypervolume": grown[-1],
            "objective": asked.select.objective,
            "candidates": {
                names[c.trial.number]: {
                    "trial": c.trial.number,
                    "trained": c.trained,
                    "val_drop_points": c.loss.points,
                    "val_drop_high": c.loss.high,
                    "within_bar": c.within,
                    "relu": bool(c.trial.params.get("relu")),
                    "without": [
                        name.removeprefix("without.")
                        for name, value in c.trial.params.items()
                        if name.startswith("without.") and value
                    ],
                }
                for c in made
            },
        },
    )


def _write_nothing(out: Path) -> None:
    """The search is off: there are no candidates of its own."""
    (out / "trials.csv").write_text("number,state,accuracy,latency_ms,speedup,size_bytes\n", encoding="utf-8")
    (out / "sensitivity.csv").write_text(
        "group,ratio,int8,accuracy,latency_ms,speedup,size_bytes\n", encoding="utf-8"
    )
    write_json(out / "metrics.json", {"trials": 0, "candidates": {}})
    print("press: off (press.trials is 0)")


if __name__ == "__main__":
    main(press)

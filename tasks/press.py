"""Search how to compress: which blocks leave, which channels of each group, and what is quantized.

Designs are tried untrained, about one a second, by accuracy, measured latency and size; the search ends when
the front has stopped growing. Of the front the fastest (or smallest) design within the bar is then sought by
bisection, where each step is a fine-tuning; what was fine-tuned becomes a candidate.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.common.errors import StageFailed
from tasks.core.common.files import fingerprint, read_json, staged, write_json
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
    stalled,
    suggest,
    tell,
    volumes,
    worth_of,
)
from tasks.core.config.cli import main
from tasks.core.config.compression_params import PressParams
from tasks.core.config.params import SelectParams
from tasks.core.config.params_file import Pipeline, load_pipeline
from tasks.core.data.dataset import open_dataset
from tasks.core.distributed.world import world
from tasks.core.evaluation.bar import Bar, Loss
from tasks.core.evaluation.stats import loss
from tasks.core.models.saved import load_model, save_model
from tasks.core.models.spec import Spec
from tasks.core.pruning.finetuning import recover
from tasks.core.quantization.deliver import deliver
from tasks.core.quantization.schemes import Source
from tasks.core.runtime.export import export
from tasks.core.runtime.session import predict, session
from tasks.core.training.recipes import note, write_history

RESAMPLES = 10_000  # of the bootstrap


def press(
    params: PressParams, model: Path, data: Path, policy: Path, settings: Path, journal: Path, out: Path
) -> None:
    """Write trials.csv, sensitivity.csv, metrics.json and a folder a candidate.

    Args:
        model: folder of the dense model, which is also the teacher.
        data: the ingested data set.
        policy: policy.json of augment.
        settings: params.yaml, whose sections `prune`, `quantize` and `select` say how designs are trained
            and quantized, and what is good enough.
        journal: a folder that outlives the run: a search goes on from here, one that was killed too.

    Raises:
        StageFailed: the network cannot be pruned or exported, or no design meets the constraints.
    """
    if not params.trials:
        _write_nothing(out)
        return
    asked = load_pipeline(settings)
    network, spec = load_model(model)
    dataset, resolved = open_dataset(data, spec.sampling), read_json(policy)
    augment = BatchAugment(resolved, asked.prune.augment_strength)
    source = Source(asked.quantize, dataset, augment, network, export(network, spec.image_shape))
    bench = Bench(source, params.criteria, asked.prune.round_to, params.images, params.seed)
    with kept(journal, _key(asked, dataset.digest, resolved, bench.dense.hex())) as folder:
        _press(params, asked, source, bench, spec, folder, out)


def _press(
    params: PressParams, asked: Pipeline, source: Source, bench: Bench, spec: Spec, folder: Path, out: Path
) -> None:
    rows = _sensitivity(params, asked.select, bench, folder / "sensitivity.json")
    study = open_study(params, asked.select, bench, rows, folder / "trials.log")
    with Progress("press", params.trials + params.finetunes * asked.prune.epochs) as progress:
        _search(study, params, asked, bench, progress)
        best = front(study, asked.select)
        if not best:
            raise StageFailed("no design meets select.max_latency_ms and select.max_size_kb: raise them")
        trained = _Workshop(asked, source, bench, spec, folder, progress).bisect(best, params.finetunes)
    for number, finetuned in enumerate(trained, 1):
        shutil.copytree(finetuned.folder, out / str(number))
    _write(study, asked, rows, trained, out)


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


@dataclass(frozen=True)
class _Finetuned:
    """A design of the front, trained: where its candidate is, and what it loses on validation images."""

    trial: FrozenTrial
    folder: Path
    loss: Loss
    within: bool


@dataclass(frozen=True)
class _Workshop:
    """Where designs are trained."""

    asked: Pipeline
    source: Source
    bench: Bench
    spec: Spec
    folder: Path
    progress: Progress

    def bisect(self, best: list[FrozenTrial], count: int) -> list[_Finetuned]:
        """Train up to `count` designs of the front: the middle one, then the one between it and the end that
        its outcome points to, each end measured by the logarithm of its merit."""
        merits = [merit(worth_of(trial), self.asked.select) for trial in best]
        low, high, trained = 0, len(best) - 1, list[_Finetuned]()
        while len(trained) < count and low <= high:
            middle = (merits[low] * merits[high]) ** 0.5
            i = min(range(low, high + 1), key=lambda j: abs(np.log(merits[j] / middle)))
            finetuned = self._finetuned(best[i])
            trained.append(finetuned)
            low, high = (i + 1, high) if finetuned.within else (low, i - 1)
        return trained

    def _finetuned(self, trial: FrozenTrial) -> _Finetuned:
        """A design, trained; what a run that was killed has finished is taken as it is."""
        folder = self.folder / f"trial-{trial.number}"
        design = suggest(trial, self.asked.press, self.bench)
        if folder.is_dir():
            self.progress.step("from the journal", self.asked.prune.epochs)
        else:
            with staged(folder) as partial:
                self._train(design, trial.number, partial)
        lost = self._loss((folder / "model.onnx").read_bytes())
        bar = Bar(self.asked.select.max_drop_points, len(self.source.dataset.val))
        return _Finetuned(trial, folder, lost, bar.passes(lost))

    def _train(self, design: Design, number: int, out: Path) -> None:
        params, dataset = self.asked.prune, self.source.dataset
        torch.manual_seed(params.seed)
        student = self.bench.cut(design).train()
        with world() as ranks:
            rows = recover(
                student,
                self.source.network,
                params,
                dataset,
                self.source.augment,
                ranks,
                length=params.epochs,
                seed=params.seed,
                checkpoint=self.folder / f"checkpoint-{number}",
            )
            history = self.progress.over(rows, note)
        self.source.network.cpu()
        student.cpu().eval()
        source = self.bench.source_of(student)
        deliver(source, self.bench.delivered(design, source), design.scheme, out)
        save_model(student, self.spec, out)
        write_history(history, out / "history.csv")

    def _loss(self, content: bytes) -> Loss:
        """What a model loses on the validation images."""
        val = self.source.dataset.val
        right = [
            predict(session(model, 1), val.images_NHWC).argmax(1) == val.labels_N
            for model in (self.bench.dense, content)
        ]
        return loss(right[0], right[1], RESAMPLES, self.asked.press.seed)


def _write(
    study: optuna.Study, asked: Pipeline, rows: list[dict[str, Any]], trained: list[_Finetuned], out: Path
) -> None:
    best = {trial.number for trial in front(study, asked.select)}
    names = {finetuned.trial.number: f"press-{i}" for i, finetuned in enumerate(trained, 1)}
    grown = volumes(study, asked.select)
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    table = [
        {
            "number": trial.number,
            "state": "complete",
            **trial.user_attrs["worth"],
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
            "candidates": {
                names[f.trial.number]: {
                    "trial": f.trial.number,
                    "val_drop_points": f.loss.points,
                    "val_drop_high": f.loss.high,
                    "within_bar": f.within,
                    "relu": bool(f.trial.params.get("relu")),
                    "without": [
                        name.removeprefix("without.")
                        for name, value in f.trial.params.items()
                        if name.startswith("without.") and value
                    ],
                }
                for f in trained
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

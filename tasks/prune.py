"""Remove channels, or single weights, from the dense model; then let it learn what it lost."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from tasks.core.augmentation.augment import Augment, augment_of
from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json, write_json
from tasks.core.common.progress import Progress
from tasks.core.config.cli import main
from tasks.core.config.compression_params import SPARSE, SPARSE_2OF4, PruneParams, check_ratio
from tasks.core.data.dataset import Dataset, open_dataset
from tasks.core.distributed.world import world
from tasks.core.models.saved import (
    is_rectified,
    load_model,
    mac_count,
    parameter_count,
    rectify,
    save_model,
    smooth_activations,
    sparsity,
)
from tasks.core.models.spec import Spec
from tasks.core.pruning.cutting import Pruner, loss_gradients
from tasks.core.pruning.finetuning import recover
from tasks.core.pruning.sparsity import PATTERN, Sparsifier
from tasks.core.runtime.export import export, figures, refill
from tasks.core.runtime.graphs import load_graph, save_graph
from tasks.core.training.batchnorm import recalibrate
from tasks.core.training.loop import Epoch, predict
from tasks.core.training.recipes import note, write_history


def prune(params: PruneParams, model: Path, data: Path, policy: Path, ratio: str, out: Path) -> None:
    """Prune in steps, training after each; write the model, its graph.onnx, history.csv and metrics.json.

    Args:
        model: folder of the dense model, which is also the teacher.
        data: the ingested data set.
        policy: policy.json of augment.
        ratio: share of the channels to remove; or sparse-SHARE, sparse-2of4: weights to set to zero.

    Raises:
        BadInput: `ratio` is none of these, or `params.relu` finds nothing to replace.
        StageFailed: the network cannot be pruned, or the loss is not finite.
    """
    dense, spec = load_model(model)
    dataset = open_dataset(data, spec.sampling)
    augment = augment_of(read_json(policy), params.augment_strength)
    history: list[Epoch] = []
    with world() as ranks:
        torch.manual_seed(params.seed)
        dense.to(ranks.device)
        student = copy.deepcopy(dense).train()
        if params.relu:
            if not smooth_activations(student):
                raise BadInput(f"prune.relu: {spec.arch} has no activation that ReLU could stand for")
            rectify(student)
        method = _method(params, ratio, student, spec, dataset, augment)
        with Progress("prune", params.epochs, quiet=not ranks.main) as progress:
            for step in range(params.steps):
                method.step()
                recalibrate(student, dataset.train, augment.input)
                before, length = len(history), _share(params.epochs, params.steps, step)
                if not length:
                    continue
                rows = recover(
                    student,
                    dense,
                    params,
                    dataset,
                    augment,
                    ranks,
                    length=length,
                    seed=params.seed + step,
                )
                history += [replace(row, epoch=before + row.epoch) for row in progress.over(rows, note)]
        if not ranks.writes:
            return
    student.cpu()
    save_model(student, spec, out)
    pruned, _ = load_model(out)
    graph = export(pruned, dataset.input) if is_rectified(pruned) else refill(load_graph(model), pruned)
    save_graph(graph, out)
    write_history(history, out / "history.csv")
    network = figures(pruned, graph, dataset)
    accuracy, loss = (
        (history[-1].val_accuracy, history[-1].val_loss) if history else _validated(pruned, dataset)
    )
    write_json(
        out / "metrics.json",
        {
            "val_accuracy": accuracy,
            "val_loss": loss,
            "collapsed": _collapsed(accuracy, len(dataset.classes)),
            **network,
            "parameters_kept": network["parameters"] / parameter_count(dense),
            "macs_kept": network["macs"] / mac_count(dense.cpu(), dataset.input),
            "sparsity": sparsity(student),
            "kept_whole": [asdict(kept) for kept in method.kept_whole()],
        },
    )


def _method(
    params: PruneParams, ratio: str, student: nn.Module, spec: Spec, dataset: Dataset, augment: Augment
) -> Pruner | Sparsifier:
    """What takes channels, or weights, away from the student, step by step."""
    try:
        amount = check_ratio(ratio)
    except ValueError as error:
        raise BadInput(f"--ratio {ratio}: {error}") from None
    if isinstance(amount, str):
        share = PATTERN if amount == SPARSE_2OF4 else float(amount.removeprefix(SPARSE))
        return Sparsifier(student, dataset.input, share, params.steps)
    return Pruner(
        student,
        dataset.input,
        amount,
        params.criterion,
        params.scope,
        params.steps,
        params.round_to,
        params.seed,
        lambda: loss_gradients(student, dataset.train, augment.input),
        dataset.train.tokens_N,
    )


def _share(epochs: int, steps: int, step: int) -> int:
    """The epochs after a step: one each, and all the rest after the last, where they count most; none, where there are none."""
    if not epochs:
        return 0
    return epochs - (steps - 1) if step == steps - 1 else 1


def _validated(model: nn.Module, dataset: Dataset) -> tuple[float, float]:
    """Accuracy and cross-entropy on the validation examples."""
    logits_NK, labels_N = predict(model, dataset.val, dataset.input), torch.tensor(dataset.val.labels_N)
    return float((logits_NK.argmax(1) == labels_N).float().mean()), float(
        F.cross_entropy(logits_NK, labels_N)
    )


def _collapsed(accuracy: float, classes: int) -> bool:
    """Whether little more than guessing is left; says so if it is.

    Twice chance is the bar, but with few classes ten points above chance: 2 / 2 would always fail.
    """
    bar = min(2 / classes, 1 / classes + 0.1)
    if accuracy > bar:
        return False
    print(
        f"prune: accuracy has collapsed: {accuracy:.1%} on the validation examples, where guessing gives "
        f"{1 / classes:.1%}: remove less, or give it more steps and epochs",
        flush=True,
    )
    return True


if __name__ == "__main__":
    main(prune)

"""Train the dense model, on as many ranks as torchrun started.

    torchrun -m tasks.train --data … --policy … --best … --checkpoints … --out …

PET_NPROC_PER_NODE and its kin set how many ranks there are; the result does not depend on where.
A run that was killed goes on from its last epoch.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import torch

from tasks.core.augmentation.augment import augment_of
from tasks.core.common.errors import BadInput
from tasks.core.common.files import fingerprint, read_json, write_json
from tasks.core.common.kept import kept
from tasks.core.common.progress import Progress
from tasks.core.config.cli import main
from tasks.core.config.params import TrainParams
from tasks.core.data.dataset import open_dataset
from tasks.core.distributed.world import World, thread_count, world
from tasks.core.models.saved import load_model, save_model, sparsity
from tasks.core.models.spec import Spec
from tasks.core.models.transfer import begin
from tasks.core.runtime.export import export, figures
from tasks.core.runtime.graphs import save_graph
from tasks.core.training.loop import Teacher, epochs
from tasks.core.training.recipes import new_network, note, recipe_of, spec_of, write_history


def train(params: TrainParams, data: Path, policy: Path, weights: Path, checkpoints: Path, out: Path) -> None:
    """Train the dense model and write model.json, model.safetensors, graph.onnx, history.csv, metrics.json.

    Args:
        data: the ingested data set.
        policy: policy.json of augment.
        weights: the folder of start, with the weights to begin with, if any.
        checkpoints: a folder that outlives the run: one that was killed goes on from here.

    Raises:
        BadInput: the batch does not divide among the ranks, or the teacher is of other examples.
        StageFailed: the loss is not finite, or the network cannot be exported to ONNX, or not to a graph that computes
            the same.
    """
    dataset = open_dataset(data, params.sampling)
    resolved = read_json(policy)
    with world(params.deterministic) as ranks:
        begins = read_json(weights / "start.json")
        key = fingerprint(
            begins, params.model_dump(), dataset.digest, resolved, torch.__version__, ranks.size
        )
        torch.manual_seed(params.seed)
        spec = spec_of(params, dataset)
        augment = augment_of(resolved, params.augment_strength)
        model = new_network(params, dataset, augment.brings)
        if (taken := begin(model, weights, params.vocabulary)) and ranks.main:
            print(f"train: {taken}", flush=True)
        # Only the main rank reads and writes checkpoints.
        own = kept(checkpoints, key) if ranks.main else nullcontext(checkpoints / key)
        with own as checkpoint, Progress("train", params.epochs, quiet=not ranks.main) as progress:
            rows = epochs(
                model,
                recipe_of(params),
                dataset.train,
                dataset.val,
                augment,
                len(dataset.classes),
                ranks,
                teacher=_teacher(weights / "teacher", params, spec, ranks),
                checkpoint=checkpoint,
            )
            history = progress.over(rows, note)
            if ranks.main:
                shutil.rmtree(checkpoint, ignore_errors=True)
        if not ranks.writes:
            return
    save_model(model, spec, out)
    saved, _ = load_model(out)
    graph = export(saved, dataset.input)
    save_graph(graph, out)
    write_history(history, out / "history.csv")
    write_json(
        out / "metrics.json",
        {
            "val_accuracy": history[-1].val_accuracy,
            "val_loss": history[-1].val_loss,
            "epochs": len(history),
            **figures(saved, graph, dataset),
            "sparsity": sparsity(model),
            "threads": thread_count(),
            "deterministic": params.deterministic,
        },
    )


def _teacher(folder: Path, params: TrainParams, spec: Spec, ranks: World) -> Teacher | None:
    """The network that stage start found to learn from; None where it found none."""
    if not folder.exists():
        return None
    model, its = load_model(folder)
    for what, here, there in (
        ("images", spec.image_shape, its.image_shape),
        ("classes", spec.num_classes, its.num_classes),
    ):
        if here != there:
            raise BadInput(
                f"start.teacher: is of {what} {there}, and these are {here}: it must know the same examples"
            )
    return Teacher(model.to(ranks.device), params.temperature, params.distill_weight)


if __name__ == "__main__":
    main(train)

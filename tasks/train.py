"""Train the dense model, on as many ranks as torchrun started.

    torchrun -m tasks.train --data … --policy … --best … --checkpoints … --out …

PET_NPROC_PER_NODE and its kin set how many ranks there are; the result does not depend on where.
A run that was killed goes on from its last epoch.
"""

from __future__ import annotations

import io
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tasks.core.augmentation.augment import augment_of
from tasks.core.common.errors import BadInput
from tasks.core.common.files import fingerprint, read_json, write_json
from tasks.core.common.kept import kept
from tasks.core.common.progress import Progress
from tasks.core.config.cli import main
from tasks.core.config.params import TrainParams
from tasks.core.data.dataset import Dataset, Split, open_dataset
from tasks.core.data.texts import Texts
from tasks.core.distributed.world import World, shared, thread_count, world
from tasks.core.models.saved import load_model, save_model, sparsity
from tasks.core.models.sentence_encoder import SentenceEncoder, is_encoder
from tasks.core.models.spec import Spec
from tasks.core.models.transfer import begin
from tasks.core.runtime.export import export, figures
from tasks.core.runtime.graphs import save_graph
from tasks.core.training.loop import Teacher, epochs
from tasks.core.training.recipes import new_network, note, recipe_of, spec_of, write_history

TEACHER = "teacher"  # the folder that stage start found, below that of the weights


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
        with own as checkpoint:
            rows = epochs(
                model,
                recipe_of(params),
                _examples(weights / TEACHER, dataset, params, ranks, checkpoint),
                dataset.val,
                augment,
                len(dataset.classes),
                ranks,
                teacher=_teacher(weights / TEACHER, params, spec, ranks),
                checkpoint=checkpoint,
            )
            with Progress("train", params.epochs, quiet=not ranks.main) as progress:
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
    if not folder.exists() or is_encoder(folder):
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


def _examples(teacher: Path, dataset: Dataset, params: TrainParams, ranks: World, checkpoint: Path) -> Split:
    """Those for training; if stage start found an encoder, with what it says of each, which is asked once and kept beside the
    checkpoints."""
    train, kept_at = dataset.train, checkpoint / "targets.npy"
    if not is_encoder(teacher):
        return train
    if not isinstance(train.raw_N, Texts):
        raise BadInput("start.teacher: is an encoder of texts, and these are images")
    content = shared(kept_at.read_bytes() if ranks.main and kept_at.exists() else b"", ranks)
    if content:
        return replace(train, targets_NK=np.load(io.BytesIO(content), allow_pickle=False))
    from tasks.core.training.encoder_targets import embeddings_of, encoder_targets  # with scikit-learn

    embeddings_NE = embeddings_of(SentenceEncoder("start.teacher", teacher, ranks.device), train.raw_N, ranks)
    labels_N, share = np.asarray(train.labels_N), params.distill_weight
    targets_NK, right = encoder_targets(embeddings_NE, labels_N, len(dataset.classes), share, params.seed)
    if ranks.main:
        print(f"train: the encoder is right about {right:.1%} of the texts for training", flush=True)
        partial = kept_at.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, targets_NK)
        partial.replace(kept_at)
    return replace(train, targets_NK=targets_NK)


if __name__ == "__main__":
    main(train)

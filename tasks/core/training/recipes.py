"""From a section of params.yaml to what the engine takes, and from its epochs to history.csv."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from torch import nn

from tasks.core.config.params import TrainParams
from tasks.core.data.dataset import Dataset
from tasks.core.data.inputs import ImageInput, TextInput
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.models.tables import add_rows, adopt
from tasks.core.training.loop import Epoch
from tasks.core.training.optimizer import Recipe


def recipe_of(params: TrainParams, **changes: float) -> Recipe:
    """The recipe in `params`, with `changes` to it."""
    values = params.model_dump()
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)} | changes)


def spec_of(params: TrainParams, dataset: Dataset) -> Spec:
    """The network that `params` describes, for the images and classes of `dataset`."""
    return Spec(
        params.arch,
        params.width,
        params.dropout,
        dataset.input.shape if isinstance(dataset.input, ImageInput) else None,
        len(dataset.classes),
        params.stochastic_depth,
        params.batch_norm,
        params.sampling,
        params.downscale,
        params.vocabulary if isinstance(dataset.input, TextInput) else 0,
    )


def new_network(params: TrainParams, dataset: Dataset, brings: Collection[int] = ()) -> nn.Module:
    """The untrained network that `params` describes; one of texts has rows for the words of those for training.

    Args:
        brings: hashes of the words that augmentation brings in, see `TextAugment.brings`.

    Raises:
        BadInput: there is no such network, or it does not suit the data.
    """
    network = build(spec_of(params, dataset))
    adopt(network, dataset.train.tokens_N)
    add_rows(network, brings, params.vocabulary)
    return network


def note(row: Epoch) -> str:
    """What a progress line says about an epoch."""
    return f"loss {row.train_loss:.3f}, val loss {row.val_loss:.3f}, val accuracy {row.val_accuracy:.2%}"


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """One row an epoch; the columns are the fields of Epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)

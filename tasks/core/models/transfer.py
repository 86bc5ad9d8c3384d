"""Transfer: a network takes over what another one has learned (Yosinski et al. 2014, arXiv:1411.1792)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tasks.core.common.errors import BadInput
from tasks.core.models.architectures import NETWORK
from tasks.core.models.embeddings import take_embeddings
from tasks.core.models.tables import Table

BEHIND = f"{NETWORK}."


@dataclass(frozen=True)
class Taken:
    """How many tensors were taken over, of tables how many rows, and what was not, with the shapes there and here."""

    taken: int
    rows: int
    left: list[str]

    def __str__(self) -> str:
        words = f", {self.rows:,} rows of words" if self.rows else ""
        missing = f"; not taken: {', '.join(self.left)}" if self.left else ""
        return f"{self.taken} tensors{words} taken over{missing}"


def begin(model: nn.Module, start: Path, vocabulary: int) -> Taken | None:
    """Give `model` the weights that the stage start found; None where it found none. See `take_over`, and `take_embeddings`."""
    weights, words = start / "model.safetensors", start / "embeddings.safetensors"
    if words.exists():
        found = load_file(words)
        return Taken(0, take_embeddings(model, found["keys"], found["weight"], vocabulary), [])
    return take_over(model, load_file(weights), vocabulary) if weights.exists() else None


@torch.no_grad()
def take_over(model: nn.Module, learned: Mapping[str, Tensor], vocabulary: int = 0) -> Taken:
    """Copy into `model`, in place, all of `learned` that fits by name and shape. The first convolution is fitted
    to other channels and to a smaller kernel; the classifier of other classes stays as it is. Of a table of words the rows
    are taken over by their keys, those of words that are new here, too.

    Args:
        vocabulary: rows of a table, at most.

    Raises:
        BadInput: nothing but the classifier would be left of the two.
    """
    # Whether pixels are averaged first, here or there, changes no weight.
    learned = {name.removeprefix(BEHIND): tensor for name, tensor in learned.items()}
    state = {name.removeprefix(BEHIND): tensor for name, tensor in model.state_dict().items()}
    rows, tables = _take_rows(model, learned, vocabulary)
    state = {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in tables}
    weights = [name for name, tensor in state.items() if tensor.ndim > 1]
    head = weights[-1].rpartition(".")[0] if weights else ""
    left: list[str] = []
    for name, tensor in state.items():
        there = learned.get(name)
        if there is not None and name == weights[0]:
            there = _fitted(there, tensor)
        if there is None or there.shape != tensor.shape:
            left.append(f"{name}: {_shape(learned.get(name))} there, {_shape(tensor)} here")
        else:
            tensor.copy_(there)
    strange = [line for line in left if not line.startswith(f"{head}.")]
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise BadInput(
            f"start.weights: of another network: {strange[0]}{more}; set train.arch to what they are of"
        )
    return Taken(len(state) - len(left), rows, left)


def _take_rows(model: nn.Module, learned: Mapping[str, Tensor], vocabulary: int) -> tuple[int, set[str]]:
    """How many rows of words were taken over, and the names of the tables whose rows fit."""
    taken, tables = 0, set()
    for path, table in model.named_modules():
        name = path.removeprefix(BEHIND)
        keys, weight = (learned.get(f"{name}.{part}") for part in ("keys", "weight"))
        if not isinstance(table, Table) or keys is None or weight is None:
            continue
        if weight.shape[1] == table.embedding_dim:
            table.add(keys, vocabulary)
            taken += table.take(keys, weight)
            tables.add(name)
    return taken, tables


def _fitted(there: Tensor, here: Tensor) -> Tensor:
    """The weights of a first convolution for other channels, of which each then counts as much, and for a
    smaller kernel, which takes the middle."""
    if there.ndim != 4 or here.ndim != 4 or there.shape[0] != here.shape[0]:
        return there
    cut_H, cut_W = (there.shape[i] - here.shape[i] for i in (2, 3))
    if min(cut_H, cut_W) < 0 or cut_H % 2 or cut_W % 2:
        return there
    there = there[:, :, cut_H // 2 : there.shape[2] - cut_H // 2, cut_W // 2 : there.shape[3] - cut_W // 2]
    if there.shape[1] != here.shape[1]:
        there = there.sum(1, keepdim=True).expand_as(here) / here.shape[1]
    return there


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else " x ".join(map(str, tensor.shape)) or "a number"

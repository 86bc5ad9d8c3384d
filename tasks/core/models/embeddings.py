"""Static embeddings of words as a beginning of tables: a folder as model2vec (Tulkens and van Dongen 2024) writes it.

V: words, D: numbers of a row here, E: of an embedding there.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.core.common.errors import BadInput
from tasks.core.data.tokens import Words
from tasks.core.models.tables import SPREAD, Table

TENSORS, TOKENIZER = "model.safetensors", "tokenizer.json"
BEGINS = ("\u2581", "\u0120")  # a piece at the beginning of a word, where a tokenizer marks those
CONTINUES = "##"  # or one that is no beginning, where it marks these


def is_embeddings(folder: Path) -> bool:
    """Whether it has a tokenizer of its own, as no folder of a network has."""
    return (folder / TOKENIZER).exists()


def read_embeddings(folder: Path) -> dict[str, Tensor]:
    """`keys`, ascending, and `weight` [V, E] of the words that are one piece there and one token here; numbers are as far
    apart as those of a new table.

    Raises:
        BadInput: the folder holds no such embeddings.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    try:
        tensors = load_file(folder / TENSORS)
        pieces = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab(with_added_tokens=False)
    except FileNotFoundError:
        raise BadInput(f"start.weights: {folder / TENSORS}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"start.weights: {folder / TENSORS}: not a safetensors file ({error})") from None
    except Exception as error:  # tokenizers raises no other class
        raise BadInput(f"start.weights: {folder / TOKENIZER}: no tokenizer ({error})") from None
    if "embeddings" not in tensors:
        raise BadInput(
            f"start.weights: {folder / TENSORS}: no tensor `embeddings`, so no static embeddings of model2vec"
        )
    numbers_V, keys_V = _words(pieces)
    numbers = torch.from_numpy(numbers_V)
    try:
        rows = tensors["mapping"][numbers] if "mapping" in tensors else numbers
        weight_VE = tensors["embeddings"][rows].float()
        if "weights" in tensors:
            weight_VE *= tensors["weights"][numbers].float()[:, None]
    except IndexError:
        raise BadInput(f"start.weights: {folder}: the tokenizer is of other embeddings") from None
    return {"keys": torch.from_numpy(keys_V), "weight": weight_VE * (SPREAD / weight_VE.std())}


def _words(pieces: dict[str, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers of the pieces that are whole words, and the hashes of these, which ascend. Of words that differ by upper and
    lower case alone the first is taken, which is the most frequent."""
    ordered = sorted(pieces, key=pieces.__getitem__)
    marked = any(piece.startswith(BEGINS) for piece in ordered)
    whole = [
        piece for piece in ordered if piece.startswith(BEGINS) or not (marked or piece.startswith(CONTINUES))
    ]
    words = np.array([piece[1:] if marked else piece for piece in whole], object)
    numbers = np.array([pieces[piece] for piece in whole], np.int64)
    flat, lengths = np.zeros(0, np.uint32), np.zeros(0, np.int64)
    for more, counts in Words(2).tokens_of(words):
        flat, lengths = np.append(flat, more), np.append(lengths, counts)
    single = np.flatnonzero(lengths == 1)
    keys, first = np.unique(flat[(np.cumsum(lengths) - 1)[single]], return_index=True)
    return numbers[single[first]], keys.astype(np.int64)


@torch.no_grad()
def take_embeddings(model: nn.Module, keys: Tensor, weight_VE: Tensor) -> int:
    """Begin the rows of those words of the tables of `model`, in place, that have an embedding with it; how many. Where a row
    has fewer numbers, they are the embeddings' principal components; where it has more, the rest stays as it is.

    Raises:
        BadInput: there is no table, or no word of it has an embedding.
    """
    taken = 0
    for table in model.modules():
        if isinstance(table, Table):
            rows = table.rows(keys)
            some_VE = _principal(weight_VE[rows > 0], table.embedding_dim)
            table.weight[rows[rows > 0], : some_VE.shape[1]] = some_VE
            taken += len(some_VE)
    if not taken:
        raise BadInput("start.weights: none of the network's words has one of these embeddings")
    return taken


def _principal(weight_VE: Tensor, width: int) -> Tensor:
    """The first so many of the principal components, all where there are no more; not centred, as 0 is no word."""
    if weight_VE.shape[1] <= width:
        return weight_VE
    _, axes_EE = torch.linalg.eigh(weight_VE.T.double() @ weight_VE.double())
    return cast(Tensor, weight_VE @ axes_EE.flip(1)[:, :width].float())

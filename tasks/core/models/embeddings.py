"""Embeddings of words as a beginning of tables: static ones, of a folder as model2vec (Tulkens and van Dongen 2024) writes it, or
what an encoder of sentences says of each word alone, which is how model2vec makes them.

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
from tasks.core.models.sentence_encoder import SentenceEncoder, is_encoder
from tasks.core.models.tables import SPREAD, Table

TENSORS, TOKENIZER = "model.safetensors", "tokenizer.json"
RARE = 1e-4  # share of all words at which one counts half, see `_of_an_encoder`
BEGINS = ("\u2581", "\u0120")  # a piece at the beginning of a word, where a tokenizer marks those
CONTINUES = "##"  # or one that is no beginning, where it marks these


def is_embeddings(folder: Path) -> bool:
    """Whether it has a tokenizer of its own, as no folder of a network has."""
    return (folder / TOKENIZER).exists()


def read_embeddings(folder: Path) -> dict[str, Tensor]:
    """`keys` and `weight` [V, E] of the words that are one piece there and one token here, in the order of the pieces, the most
    frequent first; numbers are as far apart as those of a new table.

    Raises:
        BadInput: the folder holds no such embeddings.
    """
    from tokenizers import Tokenizer

    try:
        pieces = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab(with_added_tokens=False)
    except Exception as error:  # tokenizers raises no other class
        raise BadInput(f"start.weights: {folder / TOKENIZER}: no tokenizer ({error})") from None
    words_V, numbers_V, keys_V = _words(pieces)
    weight_VE = _of_an_encoder(folder, words_V) if is_encoder(folder) else _static(folder, numbers_V)
    return {"keys": torch.from_numpy(keys_V), "weight": weight_VE * (SPREAD / weight_VE.std())}


def _static(folder: Path, numbers_V: npt.NDArray[np.int64]) -> Tensor:
    """weight_VE of these pieces."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / TENSORS)
    except FileNotFoundError:
        raise BadInput(f"start.weights: {folder / TENSORS}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"start.weights: {folder / TENSORS}: not a safetensors file ({error})") from None
    if "embeddings" not in tensors:
        raise BadInput(
            f"start.weights: {folder / TENSORS}: no tensor `embeddings`, so no static embeddings of model2vec"
        )
    numbers = torch.from_numpy(numbers_V)
    try:
        rows = tensors["mapping"][numbers] if "mapping" in tensors else numbers
        weight_VE = tensors["embeddings"][rows].float()
        return weight_VE * tensors["weights"][numbers].float()[:, None] if "weights" in tensors else weight_VE
    except IndexError:
        raise BadInput(f"start.weights: {folder}: the tokenizer is of other embeddings") from None


def _of_an_encoder(folder: Path, words_V: npt.NDArray[np.object_]) -> Tensor:
    """weight_VE: what the encoder says of each word alone, less what it says of all; frequent words, of which pieces are sorted by,
    count less (Arora et al. 2017, with frequencies by Zipf's law, as in model2vec)."""
    said_VE = SentenceEncoder("start.weights", folder).encode(words_V)
    ranks_V = torch.arange(1, len(words_V) + 1)
    share_V = 1 / (ranks_V * (1 / ranks_V).sum())
    return (said_VE - said_VE.mean(0)) * (RARE / (RARE + share_V))[:, None]


def _words(
    pieces: dict[str, int],
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pieces that are whole words, in their order: the words, their numbers, and their hashes. Of words that differ by upper
    and lower case alone the first is taken, which is the most frequent."""
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
    keys = flat[(np.cumsum(lengths) - 1)[single]].astype(np.int64)
    _, first = np.unique(keys, return_index=True)
    first.sort()
    return words[single[first]], numbers[single[first]], keys[first]


@torch.no_grad()
def take_embeddings(model: nn.Module, keys: Tensor, weight_VE: Tensor, vocabulary: int) -> int:
    """Begin the rows of those words of the tables of `model`, in place, that have an embedding with it; how many. Words that are
    new here get a row, too, the first ones, as far as there is room. Where a row has fewer numbers, they are the embeddings'
    principal components; where it has more, the rest stays as it is.

    Args:
        vocabulary: rows of a table, at most.

    Raises:
        BadInput: there is no table, or no word of it has an embedding.
    """
    taken = 0
    for table in model.modules():
        if isinstance(table, Table) and (table.rows(keys) > 0).any():
            table.add(keys, vocabulary)
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

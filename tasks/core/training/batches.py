"""Batches of examples on the device that computes: drawn anew each epoch for training, or the same each time.

x_N: examples as a data set holds them, such as uint8 images; x: what a network takes, such as normalised ones; N is the
global batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.core.data.dataset import Split
from tasks.core.data.inputs import Input
from tasks.core.training.optimizer import Recipe

RESIDENT = 0.25  # share of a GPU's free memory that the examples for training may take for good
UPLOAD_BYTES = 64 << 20  # at once
AHEAD = 3  # batches that are read while a GPU computes
TOGETHER = 32  # batches of texts that are sorted by length among them: a batch is computed as long as its longest text

Batch = tuple[Tensor, ...]  # x_N, labels_N, and targets_NK where the examples have some


class TrainingBatches:
    """The global batches of each epoch, on the device that computes.

    A CPU cuts them from the memory map. A GPU keeps all examples where they fit; else a thread reads ahead, into
    pinned memory from which they are copied while the GPU computes.
    """

    def __init__(self, train: Split, recipe: Recipe, device: torch.device) -> None:
        self._train, self._recipe, self._device = train, recipe, device
        self._given = (train.x_N, train.labels_N) + (() if train.targets_NK is None else (train.targets_NK,))
        self._held: Batch | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if train.x_N.nbytes <= RESIDENT * free:
                rest = (to_device(array, device) for array in self._given[1:])
                self._held = (_uploaded(train.x_N, device), *rest)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Those of an epoch, counted from 0; the last examples that fill no batch wait for another one."""
        rows_SN = self._rows(number)
        if self._device.type == "cpu":
            for rows_N in rows_SN:
                yield tuple(to_device(array[rows_N], self._device) for array in self._given)
        elif self._held is not None:
            for at_N in to_device(rows_SN, self._device):
                yield tuple(held[at_N] for held in self._held)
        else:
            yield from self._read_ahead(rows_SN)

    def _rows(self, epoch: int) -> npt.NDArray[np.intp]:
        """Which examples each step S has: an epoch draws as many as there are."""
        size = self._recipe.batch_size
        draws = np.random.default_rng([self._recipe.seed, epoch])
        order = self._train.drawn(len(self._train), draws)
        rows_SN = order[: len(order) // size * size].reshape(-1, size)
        if (sizes_N := self._train.sizes_N) is not None:
            rows_SN = _of_like_size(rows_SN, sizes_N, draws)
        rows_SN.sort(axis=1)  # pages of the memory map are touched in order
        return rows_SN

    def _read_ahead(self, rows_SN: npt.NDArray[np.intp]) -> Iterator[Batch]:
        def read(rows_N: npt.NDArray[np.intp]) -> Batch:
            return tuple(torch.from_numpy(array[rows_N]).pin_memory() for array in self._given)

        with ThreadPoolExecutor(1) as reader:
            steps = iter(rows_SN)
            reading: deque[Future[Batch]] = deque(reader.submit(read, rows) for rows in islice(steps, AHEAD))
            while reading:
                batch = reading.popleft().result()
                reading.extend(reader.submit(read, rows) for rows in islice(steps, 1))
                # The allocator of pinned memory gives none anew before the copies from it have ended.
                yield tuple(tensor.to(self._device, non_blocking=True) for tensor in batch)


def _of_like_size(
    rows_SN: npt.NDArray[np.intp], sizes_N: npt.NDArray[np.int64], draws: np.random.Generator
) -> npt.NDArray[np.intp]:
    """The same examples in batches of such as are about as long, which come in an order that is drawn."""
    sorted_SN = [
        some[np.argsort(sizes_N[some], kind="stable")].reshape(-1, rows_SN.shape[1])
        for some in (rows_SN[i : i + TOGETHER].ravel() for i in range(0, len(rows_SN), TOGETHER))
    ]
    return draws.permutation(np.concatenate(sorted_SN))


def _uploaded(x_N: npt.NDArray[Any], device: torch.device) -> Tensor:
    """All examples on the device, without all of them being in memory as well."""
    held_N = torch.empty(x_N.shape, dtype=torch.uint8, device=device)
    some = max(1, UPLOAD_BYTES // x_N[0].nbytes)
    for start in range(0, len(x_N), some):
        held_N[start : start + some] = to_device(x_N[start : start + some], device)
    return held_N


def to_device(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """A copy of `array` where it is computed with."""
    return torch.tensor(np.asarray(array), device=device)


def sample(
    model: nn.Module, split: Split, given: Input, most: int, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole batches of (x, labels_N), at most so many examples, the same ones each time; one smaller batch if there are fewer.

    Texts share one with such as are about as long, as when a network learns: what is behind the shorter ones would be most of
    what statistics are of."""
    device = next(model.parameters()).device
    order = split.drawn(min(most, len(split)), np.random.default_rng(0))
    size = min(batch, len(order))
    order = order[: len(order) // size * size]
    if split.sizes_N is not None:
        order = order[np.argsort(split.sizes_N[order], kind="stable")]
    for start in range(0, len(order), size):
        rows = np.sort(order[start : start + size])
        yield given.tensor(to_device(split.x_N[rows], device)), to_device(split.labels_N[rows], device)

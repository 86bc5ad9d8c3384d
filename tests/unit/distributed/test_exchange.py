"""Ranks of one host that tell each other small tensors without Gloo's threads."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from tasks.core.distributed.exchange import Gather, gathering
from tasks.core.distributed.world import TIMEOUT, World
from tests.ranks import Run, ranks

pytestmark = pytest.mark.slow  # processes

RANKS = 3


@pytest.fixture(scope="module")
def on_ranks() -> Iterator[Run]:
    with ranks(RANKS) as run:
        yield run


def one_of(rank: int, folder: Path, act: Callable[[int, Gather, Path], None], one_host: bool) -> None:
    os.environ["LOCAL_WORLD_SIZE"] = str(RANKS if one_host else 1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    with gathering(World(rank, RANKS, torch.device("cpu"))) as gather:
        act(rank, gather, folder)
    distributed.destroy_process_group()


def gather_twice(rank: int, gather: Gather, folder: Path) -> None:
    for values in ([[rank, 10 + rank]], [[2.5 * rank]]):
        own = torch.tensor(values, dtype=torch.float64)
        torch.save(gather(own), folder / f"{rank}-{own.numel()}.pt")


@pytest.mark.parametrize("one_host", [True, False])
def test_every_rank_has_the_tensors_of_all_in_order_when_they_are_gathered(
    tmp_path: Path, one_host: bool, on_ranks: Run
) -> None:
    on_ranks(one_of, folder=tmp_path, act=gather_twice, one_host=one_host)
    for rank in range(RANKS):
        first, second = (torch.load(tmp_path / f"{rank}-{n}.pt", weights_only=True) for n in (2, 1))
        assert first.tolist() == [[[0, 10]], [[1, 11]], [[2, 12]]]
        assert second.tolist() == [[[0]], [[2.5]], [[5]]]


def lose_the_last(rank: int, gather: Gather, folder: Path) -> None:
    gather(torch.ones(1))
    if rank == RANKS - 1:
        os._exit(0)
    began = time.monotonic()
    try:
        gather(torch.ones(1))
    except distributed.DistNetworkError:
        (folder / str(rank)).write_text(str(time.monotonic() - began), encoding="utf-8")
    os._exit(0)


def test_gathering_fails_at_once_when_a_rank_of_the_host_is_gone(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of, (tmp_path, lose_the_last, True), nprocs=RANKS)  # type: ignore[no-untyped-call]
    for rank in range(RANKS - 1):
        assert float((tmp_path / str(rank)).read_text(encoding="utf-8")) < TIMEOUT.seconds / 2

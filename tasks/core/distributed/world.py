"""Where this process stands among its ranks: read from torchrun's environment, never from params.

Started without torchrun, a stage is rank 0 of 1. Gloo joins CPUs, NCCL joins GPUs.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from tasks.core.common.errors import BadInput, StageFailed

# What mallopt calls them in glibc's malloc.h, and what they are set to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_BYTES, _LARGEST_MMAP_THRESHOLD = 1 << 30, 32 << 20

# Gloo notices a dead peer only when a collective times out; its default is half an hour.
TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True)
class World:
    """This process's rank, how many there are, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this rank speaks, and keeps the checkpoints."""
        return self.rank == 0

    @property
    def on_one_cpu(self) -> bool:
        """Whether all ranks are processes of this host that share its cores."""
        return self.device.type == "cpu" and os.environ.get("LOCAL_WORLD_SIZE") == str(self.size)

    @property
    def writes(self) -> bool:
        """Whether this rank writes what the stage puts out: one on each host, since hosts share no disk."""
        return os.environ.get("LOCAL_RANK", "0") == "0"


def thread_count() -> int:
    """Threads for one rank: the cores that this process may use, shared among the ranks of the host.

    Weights are equal to the bit only at the same count, so it is set, not left to chance.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // local)


def deterministic(*, warn_only: bool = False) -> None:
    """Compute the same bits every time. Memory is not filled before it is used: nothing of ours reads
    what it has not written, and filling costs several percent."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_memory() -> None:
    """Let the allocator keep what is freed for the next step.

    glibc maps every large tensor anew and gives it back when it is freed, and the kernel has to clear its
    pages each time: of a training step on two cores that was a sixth. Elsewhere nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)


@contextmanager
def world(repeatable: bool = True) -> Iterator[World]:
    """Join the other ranks for the length of the block.

    Args:
        repeatable: compute the same bits every time; else a GPU takes whichever kernel is fastest.

    Raises:
        StageFailed: a rank is gone.
    """
    rank = int(os.environ.get("RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    keep_memory()
    torch.set_num_threads(thread_count())
    if repeatable:
        deterministic(warn_only=device.type == "cuda")
    else:
        torch.backends.cudnn.benchmark = True
    try:
        if size > 1:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        yield World(rank, size, device)
    except RuntimeError as error:
        if size > 1 and _of_the_network(error):
            raise StageFailed(
                f"rank {rank} of {size}: another rank is gone, or has not answered for {TIMEOUT.seconds} s; start all "
                "again: training goes on from the last epoch"
            ) from None
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def shared(content: bytes, world: World) -> bytes:
    """What the main rank has, on every rank: they may be hosts that share no disk."""
    if world.size == 1:
        return content
    length = torch.tensor([len(content)], device=world.device)
    distributed.broadcast(length, 0)
    if not length:
        return b""
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if world.main else None
    held = torch.empty(int(length), dtype=torch.uint8, device=world.device)
    if data is not None:
        held.copy_(data)
    distributed.broadcast(held, 0)
    return held.cpu().numpy().tobytes()


def _of_the_network(error: RuntimeError) -> bool:
    """Gloo raises plain RuntimeErrors, which name its source files."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def check_divides(batch_size: int, ranks: int, parts: int) -> None:
    """Raises BadInput when the ranks, and the parts in which each computes, cannot be of one size."""
    if batch_size % (ranks * parts):
        many = f"the {ranks} ranks" if parts == 1 else f"{ranks} ranks times accumulate ({parts})"
        raise BadInput(f"train.batch_size ({batch_size}) is global and must be a multiple of {many}")

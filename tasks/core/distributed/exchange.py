"""What each rank has of a small tensor, for all of them.

Gloo and NCCL join whatever ranks there are. Between processes of one host that compute on its cores, the thread that
computes sends and receives by itself: Gloo's own threads have to be woken on cores that are all busy, and a kernel that
preempts lazily (Linux 6.13 and later) lets them wait for its next tick, milliseconds later.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed

from tasks.core.distributed.world import TIMEOUT, World, shared

Gather = Callable[[Tensor], Tensor]


@contextmanager
def gathering(world: World) -> Iterator[Gather]:
    """A function that all ranks call with tensors of one shape; it stacks those of all, in the order of ranks. For the
    length of the block."""
    if world.on_one_cpu:
        with _neighbours(world) as neighbours:
            # As a decorator it would import the compiler, a second, into every process that trains.
            yield torch.compiler.disable(neighbours.gather)  # type: ignore[no-untyped-call]
    else:
        yield _gather


def _gather(own: Tensor) -> Tensor:
    found = own.new_empty(distributed.get_world_size(), *own.shape)
    distributed.all_gather_single(found.flatten(0, 1), own)
    return found


class _Neighbours:
    """A rank's connections to the other ranks of its host, by rank."""

    def __init__(self, rank: int, others: dict[int, socket.socket]) -> None:
        self._rank, self._others = rank, others

    def gather(self, own: Tensor) -> Tensor:
        """Those of all ranks, [R, *own.shape].

        Raises:
            DistNetworkError: another rank has ended, or has not answered for as long as Gloo would wait.
        """
        found = own.new_empty(len(self._others) + 1, *own.shape)
        found[self._rank] = own
        try:
            # Some kilobytes, of the hundreds that a socket holds: nobody waits for the others to read.
            for other in self._others.values():
                other.sendall(found[self._rank].numpy().data)
            for rank, other in self._others.items():
                if not other.recv_into(found[rank].numpy().data):
                    raise EOFError
        except (OSError, EOFError):
            raise distributed.DistNetworkError("a rank of this host is gone") from None
        return found


@contextmanager
def _neighbours(world: World) -> Iterator[_Neighbours]:
    """Each rank calls those before it, and is called by those after it."""
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory()) if world.main else ""
        folder = Path(shared(made.encode(), world).decode())
        listener = stack.enter_context(_socket())
        listener.bind(str(folder / str(world.rank)))
        listener.listen(world.size)
        distributed.barrier()  # now all listen
        others = {}
        for rank in range(world.rank):
            others[rank] = stack.enter_context(_socket())
            others[rank].connect(str(folder / str(rank)))
            others[rank].send(bytes([world.rank]))
        for _ in range(world.rank + 1, world.size):
            caller, _ = listener.accept()
            caller.settimeout(TIMEOUT.seconds)
            others[caller.recv(1)[0]] = stack.enter_context(caller)
        yield _Neighbours(world.rank, others)


def _socket() -> socket.socket:
    """Messages arrive whole."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(TIMEOUT.seconds)
    return made

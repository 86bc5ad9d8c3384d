"""torchrun for a stage, with an end that can be read.

    python -m tasks.core.distributed.torchrun --rdzv-id=train -m tasks.train …

Arguments and environment (PET_NPROC_PER_NODE, PET_NNODES and their kin) are torchrun's. Without PET_NNODES all ranks
are on this host; without any of them there is one, which takes the place of this process: torchrun would import torch
a second time, to watch it. Where torchrun ends with its own exit code and a traceback, this ends with that of the rank
that failed first, and says in a line why.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def main() -> None:
    """Run the ranks; exit with 0, with the code of the first that failed (128 and more: a signal), or with 1 where
    the hosts do not find each other."""
    if not any(name.startswith("PET_") for name in os.environ):
        os.execv(sys.executable, [sys.executable, *sys.argv[sys.argv.index("-m") :]])
    from torch.distributed import run

    # Ranks that are started again would find the addresses of the dead ones in a shared store.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    run.logger.setLevel(logging.ERROR)  # it warns that each rank has one thread; stages set how many
    alone = [] if "PET_NNODES" in os.environ else ["--standalone"]
    args = run.parse_args([*alone, *sys.argv[1:]])  # type: ignore[no-untyped-call]
    if not args.max_restarts:  # nothing goes on after what it reports, and that is said below
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="torchrun-") as folder:
        args.log_dir = args.log_dir or folder  # one of its own would stay
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    stage = args.training_script.rpartition(".")[2]
    try:
        run.run(args)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        _fail(stage, error.failures)
    except RendezvousError as error:
        hosts = f"PET_NNODES={args.nnodes}, PET_RDZV_ENDPOINT={args.rdzv_endpoint}"
        sys.exit(f"{stage}: the hosts did not find each other ({hosts}): {error or type(error).__name__}")
    except SignalException as error:
        sys.exit(128 + error.sigval)


def _fail(stage: str, failures: dict[int, ProcessFailure]) -> NoReturn:
    """Exit for the rank that the others failed with: one that was killed, else the first. What torchrun itself has
    ended got SIGTERM."""
    killed = [rank for rank, f in failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM]
    rank = min(killed or failures, key=lambda rank: failures[rank].timestamp)
    failure = failures[rank]
    if failure.exitcode < 0:
        print(f"{stage}: rank {rank} was ended by {failure.signal_name()}", file=sys.stderr, flush=True)
        sys.exit(128 - failure.exitcode)
    if Path(failure.error_file).exists():  # else it ended with a traceback
        print(failure.message, file=sys.stderr, flush=True)
    sys.exit(failure.exitcode)


if __name__ == "__main__":
    main()

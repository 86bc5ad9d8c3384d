"""Training throughput of two ranks on two cores against one rank with two threads.

    python benchmarks/ranks.py [--rounds 5] [--images 12800]

Stage train under torchrun, on the network and with the settings of `throughput.py`; timed from the end of its first
epoch to the end of its last.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cut
import numpy as np
import yaml
from common import ratio, write_result

TRAIN = {"width": 40, "epochs": 4, "batch_size": 128, "lr": 0.1}
TARGET = 0.85


def seconds(task: Path, ranks: int) -> float:
    """How long stage train takes from the end of its first epoch to the end of its last."""
    command = ["torchrun", "--standalone", f"--nproc-per-node={ranks}", "-m", "tasks.train"]
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        folders = {
            "--params": task / "params.yaml",
            "--data": task / "ingest",
            "--policy": task / "policy.json",
            "--weights": task / "start",
            "--checkpoints": Path(folder) / "kept",
            "--out": Path(folder) / "out",
        }
        command += [str(word) for pair in folders.items() for word in pair]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with subprocess.Popen(
            command, cwd=cut.ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as stage:
            assert stage.stdout is not None
            for line in stage.stdout:
                if line.startswith("train ") and "/" in line:
                    ends.append(time.perf_counter())
    if stage.returncode:
        raise SystemExit(f"train ended with {stage.returncode} on {ranks} ranks")
    return ends[-1] - ends[0]


def main() -> None:
    """Time both in turn, and write the ratio."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=12_800, help="an epoch (default: %(default)s)")
    args = parser.parse_args()
    one, two = [], []
    with tempfile.TemporaryDirectory() as scratch:
        task = Path(scratch) / "task"
        rows = {split: np.arange(args.images if split == "train" else 500) for split in cut.SPLITS}
        cut.write_task(task, rows, list(range(10)))
        (task / "params.yaml").write_text(yaml.safe_dump({"train": TRAIN}), encoding="utf-8")
        for _ in range(args.rounds):
            one.append(seconds(task, 1))
            two.append(seconds(task, 2))
            print(f"one rank {one[-1]:.1f} s, two {two[-1]:.1f} s", flush=True)
    share = ratio(one, two)
    payload = {
        "images": args.images,
        "train": TRAIN,
        "rounds": args.rounds,
        "two_ranks_to_one": share,
        "target": TARGET,
        "met": share["median"] >= TARGET,
    }
    print(write_result("ranks", payload, ("torch",)))


if __name__ == "__main__":
    main()

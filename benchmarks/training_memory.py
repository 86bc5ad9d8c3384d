"""Memory of `train` on 1,000,000 packed images against 60,000: it should hardly grow.

    python benchmarks/training_memory.py [--counts 60000 1000000]

Packed noise of 28 x 28, as ingest packs images, and stage train on it for one epoch. Watched is the memory that is the
process's own (RssAnon of /proc: resident pages that no file stands behind), so that the page cache, which the kernel
takes back when others need it, does not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import write_result

from tasks.core.common.files import write_json

ROOT = Path(__file__).parents[1]
SIDE, CLASSES, TARGET = 28, 10, 1.1
TRAIN = {"width": 8, "epochs": 1, "batch_size": 500, "lr": 0.05}
POLICY = {
    "image_shape": [SIDE, SIDE, 1],
    "channel_mean": [0.5],
    "channel_std": [0.3],
    "operations": {"flip_horizontal": {"probability": 0.5}, "crop": {"pixels": 2}},
}
HELD_OUT = 1000


def make_task(folder: Path, count: int) -> None:
    """A data set of `count` images for training, and all else that stage train reads."""
    data = folder / "ingest"
    data.mkdir()
    draws = np.random.default_rng(0)
    for split, images in (("train", count), ("val", HELD_OUT), ("test", HELD_OUT)):
        shape = (images, SIDE, SIDE, 1)
        packed_NHWC = np.lib.format.open_memmap(data / f"{split}_images.npy", "w+", np.uint8, shape)
        for start in range(0, images, 10_000):
            block_NHWC = packed_NHWC[start : start + 10_000]
            block_NHWC[:] = draws.integers(0, 256, block_NHWC.shape, dtype=np.uint8)
        np.save(data / f"{split}_labels.npy", np.arange(images) % CLASSES)
    about = {
        "classes": [str(label) for label in range(CLASSES)],
        "image_shape": [SIDE, SIDE, 1],
        "digest": str(count),
    }
    write_json(data / "dataset.json", about | {"channel_mean": [0.5], "channel_std": [0.3]})
    write_json(folder / "policy.json", POLICY)
    (folder / "start").mkdir()
    write_json(folder / "start/start.json", {})
    (folder / "params.yaml").write_text(yaml.safe_dump({"train": TRAIN}), encoding="utf-8")


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def measure(count: int) -> dict[str, float]:
    """One epoch of stage train on `count` images."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_task(folder, count)
        command = [
            sys.executable,
            "-m",
            "tasks.train",
            "--params",
            folder / "params.yaml",
            "--data",
            folder / "ingest",
        ]
        command += ["--policy", folder / "policy.json", "--weights", folder / "start"]
        command += ["--checkpoints", folder / "checkpoints", "--out", folder / "out"]
        start, peak = time.perf_counter(), 0
        with subprocess.Popen([str(word) for word in command], cwd=ROOT) as stage:
            while stage.poll() is None:
                peak = max(peak, anonymous_bytes(stage.pid))
                time.sleep(0.05)
        if stage.returncode:
            raise SystemExit(f"train ended with {stage.returncode} at {count} images")
    return {"peak_mb": round(peak / 1e6, 1), "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Measure both sizes, and write how much more the larger one takes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--counts", type=int, nargs=2, default=[60_000, 1_000_000], metavar=("FEW", "MANY"))
    few, many = parser.parse_args().counts
    runs = {str(count): measure(count) for count in (few, many)}
    growth = round(runs[str(many)]["peak_mb"] / runs[str(few)]["peak_mb"], 3)
    payload: dict[str, Any] = {
        "runs": runs,
        "ratio": growth,
        "target_ratio": TARGET,
        "met": growth <= TARGET,
        "memory": "RssAnon, highest of all samples",
        "train": TRAIN,
    }
    print(write_result("training_memory", payload, ("torch", "numpy")))


if __name__ == "__main__":
    main()

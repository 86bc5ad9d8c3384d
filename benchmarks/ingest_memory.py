"""Peak memory of `ingest` at 10,000 and at 100,000 images: it should hardly grow.

    python benchmarks/ingest_memory.py [--counts 10000 100000]

Makes PNG files of 28 x 28 noise in a temporary folder, runs the stage on them as DVC does, and watches
its whole tree of processes. Memory is the sum of their proportional set sizes (PSS: a page that several
processes share counts once), sampled some 20 times a second.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import write_result
from PIL import Image

ROOT = Path(__file__).parents[1]
CLASSES, SIDE, TARGET = 10, 28, 1.2
PARAMS = "ingest: {source: images}\n"


def make_images(folder: Path, count: int) -> None:
    """`count` different images in ten classes, the same ones every time."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class {i % CLASSES}" / f"{i:06}.png", compress_level=1)


def tree_bytes(root: psutil.Process) -> int:
    """PSS of a process and all below it."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:  # it ended just now
            continue
    return total


def measure(count: int) -> dict[str, float]:
    """One run of the stage on `count` images."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_images(folder / "images", count)
        (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
        start, peak, samples = time.perf_counter(), 0, 0
        with subprocess.Popen(
            [sys.executable, "-m", "tasks.ingest", "--source", "images", "--out", "out"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        ) as stage:
            watched = psutil.Process(stage.pid)
            while stage.poll() is None:
                try:
                    peak, samples = max(peak, tree_bytes(watched)), samples + 1
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.05)
        seconds = time.perf_counter() - start
        if stage.returncode:
            raise SystemExit(f"ingest ended with {stage.returncode} at {count} images")
    return {
        "peak_mb": round(peak / 1e6, 1),
        "samples": samples,
        "seconds": round(seconds, 2),
        "images_per_second": round(count / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs=2, default=[10_000, 100_000], metavar=("FEW", "MANY"))
    few, many = parser.parse_args().counts
    runs = {str(count): measure(count) for count in (few, many)}
    growth = round(runs[str(many)]["peak_mb"] / runs[str(few)]["peak_mb"], 3)
    payload: dict[str, Any] = {
        "peak_mb": {count: run["peak_mb"] for count, run in runs.items()},
        "ratio": growth,
        "target_ratio": TARGET,
        "passed": growth <= TARGET,
        "images_per_second": {count: run["images_per_second"] for count, run in runs.items()},
        "runs": runs,
        "image": f"PNG, {SIDE}x{SIDE}, grey noise",
        "memory": "proportional set size, summed over the stage's processes, highest of all samples",
    }
    print(f"peak {payload['peak_mb']} MB, ratio {growth} (at most {TARGET})")
    print(write_result("ingest_memory", payload, ("numpy", "pillow")))


if __name__ == "__main__":
    main()

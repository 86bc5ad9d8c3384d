"""How accurate an hour of training on Fashion-MNIST makes our small ResNet, by examples/accurate.yaml.

    python benchmarks/accuracy.py

Stages augment, start and train as a run has them, on all training images; test accuracy of what train leaves, on the
10,000 test images, which nothing before has seen.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from common import write_result

from tasks.core.data.dataset import open_dataset
from tasks.core.distributed.world import thread_count
from tasks.core.models.saved import load_model
from tasks.core.training.loop import predict

ROOT = Path(__file__).parents[1]
EXAMPLE, PACKED = ROOT / "examples/accurate.yaml", ROOT / "data/ingest"
TARGET, MINUTES = 0.94, 60.0


def stage(name: str, out: Path, *arguments: object) -> None:
    """Run a stage with the example's params."""
    command = [sys.executable, "-m", f"tasks.{name}", "--out", out, *arguments]
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)


def trained() -> tuple[float, float]:
    """Test accuracy of the example's network, and the seconds that it took."""
    if not (PACKED / "dataset.json").exists():
        raise SystemExit("data/ingest is missing: `dvc repro ingest` makes it")
    data = "--params", EXAMPLE, "--data", PACKED
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        stage("augment", folder / "augment", *data)
        stage("start", folder / "start", "--settings", EXAMPLE)
        inputs = "--policy", folder / "augment/policy.json", "--weights", folder / "start"
        stage("train", folder / "train", *data, *inputs, "--checkpoints", folder / "checkpoints")
        seconds = time.perf_counter() - start
        network, _ = load_model(folder / "train")
    dataset = open_dataset(PACKED)
    torch.set_num_threads(thread_count())
    logits_NK = predict(network, dataset.test, dataset.input)
    return float((logits_NK.argmax(1).numpy() == np.asarray(dataset.test.labels_N)).mean()), seconds


def main() -> None:
    """Train, and write how long it took and what was reached."""
    accuracy, seconds = trained()
    minutes = seconds / 60
    payload = {
        "train": yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["train"],
        "test_accuracy": accuracy,
        "minutes": round(minutes, 1),
        "target": {"test_accuracy": TARGET, "minutes": MINUTES},
        "met": accuracy >= TARGET and minutes <= MINUTES,
    }
    print(write_result("accuracy", payload, ("torch",)))


if __name__ == "__main__":
    main()

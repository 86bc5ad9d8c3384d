"""Training on a GPU: images a second and utilisation, ours against a plain loop and torchvision's reference script.

    python benchmarks/gpu.py [--reference FOLDER] [--rounds 2]

Small ResNet (width 40) and ResNet-18, batch 128, on pictures of Fashion-MNIST brought to 32x32 and to 224x224 and to
three channels. Ours augments on the GPU and averages the weights, as the committed configuration does, and is measured
compiled (train.compile) as well. The plain loop is what one would write first: batches cut from an array in memory and
sent to the GPU, bf16 by autocast, no augmentation. FOLDER holds references/classification of torchvision's repository;
its script reads the same pictures from files, as many workers as there are cores decode and augment them, and it trains
with --amp: what it needs from batch to batch, in the second of two epochs, the mean of the last 20.

Before that examples/accurate.yaml is trained by stage train, from start to end, its imports and first kernels with it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import accuracy
import numpy as np
import torch
from common import interleaved, write_result
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.data.dataset import Split, open_dataset
from tasks.core.distributed.world import World, deterministic
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.training.loop import epochs
from tasks.core.training.optimizer import Recipe

BATCH, LR, MOMENTUM = 128, 0.1, 0.9
WATCHED_S, LOOK_S = 2.0, 0.1
NETWORKS, SIZES = ("resnet_small", "resnet18"), (32, 224)
# An epoch. Ours ends with batch norm's statistics on 2,000 images, a large part of a shorter one.
STEPS = {32: 400, 224: 100}
POLICY: dict[str, Any] = {
    "channel_mean": [0.3] * 3,
    "channel_std": [0.3] * 3,
    "operations": {"flip_horizontal": {"probability": 0.5}, "crop": {"pixels": 2}},
}


def network(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    return build(Spec(name, 40, 0.0, (size, size, 3), 10))


def pictures(size: int) -> Split:
    """Those for training, brought to `size`; as many as an epoch takes."""
    train = open_dataset(accuracy.PACKED).train
    count = STEPS[size] * BATCH

    def grown(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(image_HWC[..., 0]).resize((size, size)).convert("RGB"))

    with ThreadPoolExecutor() as threads:
        images = list(threads.map(grown, train.raw_N[:count]))
    return Split(np.stack(images), np.asarray(train.labels_N[:count]))


def ours(name: str, data: Split, compiled: bool = False) -> Callable[[], None]:
    """The engine, without the validation that ends its epochs: a single image is validated."""
    val = Split(data.raw_N[:1], data.labels_N[:1])
    recipe = Recipe(
        epochs=1000, batch_size=BATCH, lr=LR, ema_decay=0.995, schedule="constant", compile=compiled
    )
    world = World(0, 1, torch.device("cuda", 0))
    net = network(name, data.raw_N.shape[1])
    running = epochs(
        net, recipe, data, val, BatchAugment({**POLICY, "image_shape": data.raw_N.shape[1:]}), 10, world
    )

    def epoch() -> None:
        next(running)

    return epoch


def plain(name: str, data: Split) -> Callable[[], None]:
    images_NCHW, labels_N = (
        torch.from_numpy(data.raw_N).permute(0, 3, 1, 2),
        torch.from_numpy(data.labels_N),
    )
    model = network(name, data.raw_N.shape[1]).cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, nesterov=True, weight_decay=5e-4)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)

    def epoch() -> None:
        model.train()
        for rows in torch.randperm(len(labels_N)).split(BATCH):
            optimizer.zero_grad()
            x_NCHW, targets_N = images_NCHW[rows].cuda().float() / 255, labels_N[rows].cuda()
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_of(model(x_NCHW), targets_N)
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()

    return epoch


SIDES = {"ours": ours, "ours_compiled": partial(ours, compiled=True), "plain": plain}


def utilisation(side: Callable[[], None]) -> int:
    """The share of time in which the GPU has work, in percent, as its driver says, once `side` has gone on for a while."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            seen.append(torch.cuda.utilization())

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.perf_counter()
    while time.perf_counter() < start + WATCHED_S:
        side()
    over.set()
    watcher.join()
    return round(statistics.median(seen[len(seen) // 2 :]))


WRAPPER = """
import runpy, sys
from torchvision.models._api import register_model
sys.path.insert(0, {benchmarks!r})
from gpu import network
register_model("resnet_small")(lambda **_: network("resnet_small", {size}))
sys.path.insert(0, {reference!r})
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path({reference!r} + "/train.py", run_name="__main__")
"""


def referenced(reference: Path, folder: Path, name: str, size: int) -> float:
    """Images a second of torchvision's script."""
    code = WRAPPER.format(benchmarks=str(Path(__file__).parent), reference=str(reference), size=size)
    workers = len(os.sched_getaffinity(0))
    words = ["--data-path", folder, "--model", name, "--epochs", 2, "--batch-size", BATCH, "--amp"]
    words += ["--workers", workers, "--train-crop-size", size, "--val-resize-size", size]
    words += ["--val-crop-size", size, "--print-freq", 10, "--output-dir", ""]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=accuracy.ROOT,
    )
    seconds = re.findall(r"^Epoch: \[1\].*  time: ([0-9.]+)", done.stdout, re.MULTILINE)
    if not seconds:
        raise SystemExit(f"torchvision's script failed: {done.stderr[-2000:]}")
    return BATCH / float(seconds[-1])


def write_pictures(data: Split, folder: Path) -> None:
    """As a folder of files, which torchvision's script reads."""

    def save(split: str, i: int) -> None:
        path = folder / split / str(data.labels_N[i]) / f"{i}.jpg"
        Image.fromarray(data.raw_N[i]).save(path, quality=90)

    with ThreadPoolExecutor() as threads:
        for split, count in (("train", len(data)), ("val", BATCH)):
            for label in range(10):
                (folder / split / str(label)).mkdir(parents=True)
            list(threads.map(partial(save, split), range(count)))


def measured(name: str, size: int, data: Split, rounds: int) -> dict[str, Any]:
    """Each side's images a second, and the utilisation."""
    sides = {side: make(name, data) for side, make in SIDES.items()}
    seconds = interleaved(sides, rounds)
    return {
        side: {
            "images_per_s": round(len(data) / statistics.median(took)),
            "utilisation_percent": utilisation(sides[side]),
        }
        for side, took in seconds.items()
    }


def main() -> None:
    """Time all sides in turn, then the example, and write what was found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--reference", type=Path, help="references/classification of torchvision's repository"
    )
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU")
    reached, seconds = accuracy.trained()
    print(f"{reached:.2%} in {seconds:.0f} s", flush=True)
    deterministic(warn_only=True)
    found: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        data = pictures(size)
        with tempfile.TemporaryDirectory() as scratch:
            if args.reference:
                write_pictures(data, Path(scratch))
            for name in NETWORKS:
                start = time.perf_counter()
                row = measured(name, size, data, args.rounds)
                if args.reference:
                    speed = referenced(args.reference, Path(scratch), name, size)
                    row["torchvision"] = {"images_per_s": round(speed)}
                found[f"{name} {size}x{size}"] = row
                print(name, size, row, f"{time.perf_counter() - start:.0f} s", flush=True)
    payload = {
        "card": torch.cuda.get_device_name(),
        "batch": BATCH,
        "rounds": args.rounds,
        "training": found,
        "example": {"test_accuracy": reached, "seconds": round(seconds, 1)},
    }
    print(write_result("gpu", payload, ("torch", "torchvision")))


if __name__ == "__main__":
    main()

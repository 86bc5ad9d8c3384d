"""Images a second in training: ours against a plain loop, PyTorch Lightning and timm.

    make throughput        # or .venv-peers/bin/python benchmarks/throughput.py [--rounds 3]

All train the same network (resnet_small, width 40) on all training images of Fashion-MNIST with SGD, an epoch a round,
in turn. Ours augments whole batches and averages the weights, as the committed configuration does; for the averaged
weights it computes the statistics of batch norm anew at the end of each epoch, from 2,000 images. The plain loop is
what one would write first: batches cut from an array in memory, no augmentation, nothing else; ours does as little for
that comparison (`ours_bare`), and is compared as it is as well. Lightning and timm take
their images from their own loaders, with flips and crops, image by image, in two workers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cut
import numpy as np
import torch
from common import interleaved, ratio, write_result
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.common.files import read_json
from tasks.core.data.dataset import Split, open_dataset
from tasks.core.distributed.world import World, keep_memory
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.training.loop import epochs
from tasks.core.training.optimizer import Recipe

WIDTH, BATCH, LR, MOMENTUM = 40, 128, 0.1, 0.9
WORKERS = 2


def network(shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(0)
    return build(Spec("resnet_small", WIDTH, 0.0, shape, 10))


def ours(task: Path, bare: bool = False) -> Callable[[], None]:
    """The engine, without the validation that ends its epochs: a single image is validated."""
    data = open_dataset(task / "ingest")
    policy = read_json(task / "policy.json")
    augment = BatchAugment({**policy, "operations": {}} if bare else policy)
    val = Split(data.val.raw_N[:1], data.val.labels_N[:1])
    decay = 0.0 if bare else 0.995
    recipe = Recipe(epochs=1000, batch_size=BATCH, lr=LR, ema_decay=decay, schedule="constant")
    world = World(0, 1, torch.device("cpu"))
    running = epochs(network(data.input.shape), recipe, data.train, val, augment, 10, world)

    def epoch() -> None:
        next(running)

    return epoch


def plain(task: Path) -> Callable[[], None]:
    data = open_dataset(task / "ingest")
    images_NCHW = torch.from_numpy(np.array(data.train.raw_N)).permute(0, 3, 1, 2).float() / 255
    labels_N = torch.from_numpy(np.array(data.train.labels_N))
    model = network(data.input.shape).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, nesterov=True, weight_decay=5e-4)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)

    def epoch() -> None:
        model.train()
        for rows in torch.randperm(len(labels_N)).split(BATCH)[: len(labels_N) // BATCH]:
            optimizer.zero_grad()
            loss_of(model(images_NCHW[rows]), labels_N[rows]).backward()
            optimizer.step()

    return epoch


class Pictures(Dataset[tuple[Any, int]]):
    """Images one by one, as a folder of them gives them."""

    def __init__(self, split: Split, transform: Callable[[Any], Any] | None = None) -> None:
        self.images_NHW, self.labels_N = np.array(split.raw_N[..., 0]), np.array(split.labels_N)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = Image.fromarray(self.images_NHW[index])
        return self.transform(picture) if self.transform else picture, int(self.labels_N[index])


def lightning(task: Path) -> Callable[[], None]:
    """Trainer.fit on a DataLoader with torchvision's transforms; nothing logged, saved or shown."""
    import lightning.pytorch as pl

    data = open_dataset(task / "ingest")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss_of = network(data.input.shape), nn.CrossEntropyLoss(label_smoothing=0.1)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.loss_of(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), LR, MOMENTUM, nesterov=True, weight_decay=5e-4)

    steps = [transforms.RandomCrop(28, padding=2), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    pictures = Pictures(data.train, transforms.Compose(steps))
    loader = DataLoader(
        pictures, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    module = Module()
    off = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }

    def epoch() -> None:
        pl.Trainer(max_epochs=1, accelerator="cpu", **off).fit(module, loader)

    return epoch


def timm(task: Path) -> Callable[[], None]:
    """The loop of timm's train script: its loader, optimizer and loss."""
    from timm.data import create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    data = open_dataset(task / "ingest")
    loader = create_loader(
        Pictures(data.train), (1, 28, 28), BATCH, is_training=True, no_aug=False, scale=(0.8, 1.0), color_jitter=None,
        mean=(0.286,), std=(0.353,), num_workers=WORKERS, use_prefetcher=False, persistent_workers=True,
    )  # fmt: skip
    model = network(data.input.shape)
    optimizer = create_optimizer_v2(model, "sgd", lr=LR, weight_decay=5e-4, momentum=MOMENTUM)
    loss_of = LabelSmoothingCrossEntropy(0.1)

    def epoch() -> None:
        model.train()
        for x_NCHW, labels_N in loader:
            optimizer.zero_grad()
            loss_of(model(x_NCHW), labels_N).backward()
            optimizer.step()

    return epoch


SIDES = {
    "ours": ours,
    "ours_bare": partial(ours, bare=True),
    "plain": plain,
    "lightning": lightning,
    "timm": timm,
}


def main() -> None:
    """Time all sides in turn, and write the ratios."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    keep_memory()
    images = len(cut.labels("train"))
    with tempfile.TemporaryDirectory() as scratch:
        task = Path(scratch) / "task"
        cut.write_task(
            task, {s: np.arange(images if s == "train" else 500) for s in cut.SPLITS}, list(range(10))
        )
        seconds = interleaved({name: make(task) for name, make in SIDES.items()}, args.rounds)
    speed = {name: round(images / statistics.median(s)) for name, s in seconds.items()}
    against = {name: ratio(seconds[name], seconds["ours"]) for name in ("plain", "lightning", "timm")}
    against["plain_same_work"] = ratio(seconds["plain"], seconds["ours_bare"])
    payload = {
        "images": images,
        "rounds": args.rounds,
        "images_per_s": speed,
        "times_as_fast_as": against,
        "met": all(against[name]["median"] >= 1 for name in ("plain_same_work", "lightning", "timm")),
    }
    print(write_result("throughput", payload, ("torch", "torchvision", "lightning", "timm")))


if __name__ == "__main__":
    main()

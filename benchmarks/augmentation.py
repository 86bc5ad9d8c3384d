"""Images a second: augmentation of whole batches against torchvision's, image by image in PIL.

    python benchmarks/augmentation.py [--images 60000] [--rounds 5]

Both sides shuffle, augment and normalise the same images of 28 x 28 and hand over batches of tensors.
Ours runs in this process, on all its threads; torchvision's in a DataLoader with two workers that stay
alive between rounds. Where images are interpolated, both are bilinear.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import interleaved, ratio, write_result
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as peer

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.policy import of_images
from tasks.core.config.params import AugmentParams
from tasks.core.data.inputs import ImageInput

Images = npt.NDArray[np.uint8]
PACKED = Path("data/ingest/train_images.npy")
SIDE, CROP, DEGREES, CLASSES = 28, 2, 10.0, 10
MEAN, STD = [0.286], [0.353]  # Fashion-MNIST's
WORKERS, BATCHES, TARGET = 2, (128, 512), 10


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images one by one, as torchvision's own FashionMNIST gives them."""

    def __init__(self, images_NHW: Images, transform: Callable[[Any], torch.Tensor]) -> None:
        self.images_NHW, self.transform = images_NHW, transform

    def __len__(self) -> int:
        return len(self.images_NHW)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHW[index])), index % CLASSES


def load(count: int) -> tuple[Images, str]:
    """Fashion-MNIST where ingest has packed it, repeated up to `count`; noise where it has not."""
    shape = (count, SIDE, SIDE)
    if PACKED.exists() and (packed := np.load(PACKED, mmap_mode="r")).shape[1:] == (SIDE, SIDE, 1):
        return np.resize(packed, shape), "data/ingest"
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), "random"


def batched(images_NHW: Images, degrees: float, batch: int) -> Callable[[], None]:
    params = AugmentParams(crop=CROP, rotate=degrees)
    augment = BatchAugment(of_images(params, ImageInput((SIDE, SIDE, 1), MEAN, STD)))
    images_NHWC, labels_N = images_NHW[..., None], np.arange(len(images_NHW)) % CLASSES
    draws = torch.Generator().manual_seed(0)

    def epoch() -> None:
        order = np.random.default_rng(0).permutation(len(images_NHWC))
        for start in range(0, len(order), batch):
            rows = np.sort(order[start : start + batch])
            augment(torch.from_numpy(images_NHWC[rows]), torch.from_numpy(labels_N[rows]), draws, CLASSES)

    return epoch


def one_by_one(images_NHW: Images, degrees: float, batch: int) -> Callable[[], None]:
    bilinear = peer.InterpolationMode.BILINEAR
    steps = [
        peer.RandomCrop(SIDE, padding=CROP, fill=round(255 * MEAN[0])),
        peer.RandomHorizontalFlip(),
        *([peer.RandomAffine(degrees, interpolation=bilinear)] if degrees else []),
        peer.ToTensor(),
        peer.Normalize(MEAN, STD),
    ]
    pictures = Pictures(images_NHW, peer.Compose(steps))
    loader = DataLoader(pictures, batch, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=60_000, help="an epoch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    args = parser.parse_args()
    images_NHW, source = load(args.images)
    rows: list[dict[str, Any]] = []
    for operations, degrees in (("crop, flip", 0.0), ("crop, flip, rotate", DEGREES)):
        for batch in BATCHES:
            sides = {
                "batched": batched(images_NHW, degrees, batch),
                "dataloader": one_by_one(images_NHW, degrees, batch),
            }
            seconds = interleaved(sides, args.rounds)
            speed = {name: round(args.images / statistics.median(s)) for name, s in seconds.items()}
            times = ratio(seconds["dataloader"], seconds["batched"])
            rows.append({"operations": operations, "batch": batch, "images_per_s": speed, "ratio": times})
            print(
                f"{operations:20} batch {batch:4}: {speed['batched']:9,} images/s, DataLoader "
                f"{speed['dataloader']:7,}; {times['median']:.1f} times ({times['min']:.1f} to {times['max']:.1f})",
                flush=True,
            )
    payload = {
        "images": args.images,
        "rounds": args.rounds,
        "source": source,
        "threads": torch.get_num_threads(),
        "workers": WORKERS,
        "rows": rows,
        "target_ratio": TARGET,
        "met": all(row["ratio"]["median"] >= TARGET for row in rows),
    }
    print(write_result("augmentation", payload, ("torch", "torchvision", "numpy", "pillow")))


if __name__ == "__main__":
    main()

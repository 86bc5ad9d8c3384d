"""Small tasks cut from Fashion-MNIST as ingest has packed it, with everything that the stages read beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tasks.core.common.files import read_json, write_json

ROOT = Path(__file__).parents[1]
PACKED = ROOT / "data/ingest"
SPLITS = ("train", "val", "test")
GENTLE: dict[str, dict[str, float]] = {"flip_horizontal": {"probability": 0.5}, "crop": {"pixels": 2}}
Rows = NDArray[np.intp]


def labels(split: str) -> NDArray[np.int64]:
    """Of a split's images, in order."""
    if not (PACKED / "dataset.json").exists():
        raise SystemExit("data/ingest is missing: `dvc repro ingest` makes it")
    found: NDArray[np.int64] = np.load(PACKED / f"{split}_labels.npy")
    return found


def first(split: str, classes: Mapping[int, int], skip: int = 0) -> Rows:
    """The first images of each class, as many as `classes` says, after `skip` of each; in ascending order."""
    labels_N = labels(split)
    chosen = [np.flatnonzero(labels_N == label)[skip : skip + count] for label, count in classes.items()]
    return np.sort(np.concatenate(chosen))


def write_task(
    folder: Path,
    rows: Mapping[str, Rows],
    classes: list[int],
    augment: Mapping[str, Mapping[str, float]] = GENTLE,
) -> None:
    """FOLDER/ingest with these images, FOLDER/policy.json and FOLDER/start; the labels are the places in `classes`."""
    data = folder / "ingest"
    data.mkdir(parents=True)
    about = read_json(PACKED / "dataset.json")
    for split in SPLITS:
        images_NHWC = np.load(PACKED / f"{split}_images.npy", mmap_mode="r")[rows[split]]
        labels_N = np.searchsorted(classes, labels(split)[rows[split]])
        np.save(data / f"{split}_images.npy", images_NHWC)
        np.save(data / f"{split}_labels.npy", labels_N.astype(np.int64))
    write_json(data / "dataset.json", {**about, "classes": [about["classes"][label] for label in classes]})
    policy = {
        "channel_mean": about["channel_mean"],
        "channel_std": about["channel_std"],
        "operations": augment,
    }
    write_json(folder / "policy.json", policy)
    (folder / "start").mkdir()
    write_json(folder / "start/start.json", {"weights": "random"})


def stage(name: str, task: Path, out: Path, params: Mapping[str, Any], *arguments: object) -> None:
    """Run a stage on a task, with these sections of params.yaml."""
    settings = task / "params.yaml"
    settings.write_text(yaml.safe_dump(dict(params)), encoding="utf-8")
    command = [sys.executable, "-m", f"tasks.{name}", "--params", settings, "--out", out, *arguments]
    command += ["--data", task / "ingest", "--policy", task / "policy.json"]
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)

"""What the mirror reads, in the shape that MLflow takes: entries of dvc.lock, tables, metrics, the data set, the commit."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tasks.core.common.files import read_json

_FORBIDDEN = re.compile(r"[^\w\-. :/]")
T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))


def lock_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a stage as dvc.lock holds them, files put together: `train.lr` of params.yaml
    and, where a stage reads another file such as best.yaml, that one's keys as they are."""
    merged: dict[str, Any] = {}
    for values in (entry.get("params") or {}).values():
        merged.update(values)
    return merged


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}, "c": [2, 3]} as {"a.b": 1, "c.0": 2, "c.1": 3}."""
    if isinstance(value, dict):
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list):
        items = [(str(i), v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    return {k: v for name, v in items for k, v in flatten(v, f"{prefix}.{name}" if prefix else name).items()}


def clean(name: str) -> str:
    return _FORBIDDEN.sub("_", name)


def finite(value: Any) -> float | None:
    """`value` as a finite float, or None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def curves(path: Path) -> list[tuple[str, float, int]]:
    """history.csv as curves (name, value, step) over its rows, counted from 1: epochs start again where pruning
    does."""
    return [
        (f"history/{name}", number, step)
        for step, row in enumerate(rows(path), 1)
        for name, value in row.items()
        if name not in ("epoch", "step") and (number := finite(value)) is not None
    ]


SCHEMA = ("image_shape", "kind", "longest", "classes")  # of dataset.json; images have a shape, texts a length


def dataset(folder: Path) -> dict[str, str]:
    """The data set in `folder`, as the fields of MLflow's Dataset."""
    content = read_json(folder / "dataset.json")
    counts = {split: sum(classes.values()) for split, classes in content["counts"].items()}
    return {
        "name": Path(content["source"]).name,
        "digest": content["digest"][:32],  # MLflow takes 36 characters
        "source_type": "local",
        "source": json.dumps({"uri": content["source"]}),
        "schema": json.dumps({key: content[key] for key in SCHEMA if key in content}),
        "profile": json.dumps({**counts, "digest": content["digest"]}),
    }


def git(root: Path) -> dict[str, str]:
    """Commit, and whether tracked files differ from it; nothing outside a repository or before the first
    commit."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = git("status", "--porcelain", "--untracked-files=no")
    return {"mlflow.source.git.commit": commit, "modelpress.git_dirty": "true" if dirty else "false"}

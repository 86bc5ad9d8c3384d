"""A checkout of its own for a test: our code and dvc.yaml, another data set, tiny budgets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "recipe": {"budget": "quick"},
    "augment": {"flip_horizontal": False, "crop": 1},
    "start": {"weights": "random"},
    "tune": {
        "trials": 3,
        "epochs": 2,
        "train_fraction": 0.5,
        "space": {"lr": {"low": 0.05, "high": 0.2, "log": True}, "dropout": {"choices": [0.0, 0.1]}},
    },
    "train": {"width": 16, "epochs": 4, "batch_size": 64, "lr": 0.1},
    "prune": {"ratios": [0.5], "steps": 1, "epochs": 2, "lr": 0.05, "batch_size": 64},
    "quantize": {"schemes": ["fp32", "int8"], "calibration_images": 64},
    "press": {"trials": 4, "finetunes": 1, "sensitivity": [0.5], "images": 100, "criteria": ["l2"]},
    "evaluate": {"repeats": 20, "bootstrap": 500},
    "select": {"max_drop_points": 5.0},
    "report": {"title": "Digits", "mistakes": 4},
    "registry": {"name": "digits"},
}


def make_project(folder: Path, source: Path, **sections: dict[str, Any]) -> Path:
    """A git and DVC repository in `folder` that runs the whole pipeline on the images in `source`."""
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    params = {"ingest": {"source": str(source)}, **TINY}
    params = {name: {**values, **sections.get(name, {})} for name, values in params.items()}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.email", "test@localhost")
    run(folder, "git", "config", "user.name", "test")
    run(folder, sys.executable, "-m", "dvc", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")
    return folder


def with_data(folder: Path, source: Path, **sections: dict[str, Any]) -> Path:
    """As make_project, with the images in the repository and tracked by DVC, as those of a team are."""
    images = Path("data", "raw", source.name)
    make_project(folder, images, **sections)
    shutil.copytree(source, folder / images)
    run(folder, sys.executable, "-m", "dvc", "add", "-q", images.as_posix())
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "images")
    return folder


def with_params(folder: Path, **sections: dict[str, Any]) -> Path:
    """`folder` with these keys in its params.yaml."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, values in sections.items():
        params[name] = {**params.get(name, {}), **values}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    return folder


def run(folder: Path, *command: str, code: int = 0, limit_s: float = 840, **environment: str) -> str:
    """What `command` printed, after it ended with `code`."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def repro(folder: Path, *arguments: str, **environment: str) -> str:
    """What `dvc repro` printed."""
    return run(folder, sys.executable, "-m", "dvc", "repro", *arguments, **environment)


def metrics(folder: Path, stage: str) -> dict[str, object]:
    """metrics.json of a stage."""
    content: dict[str, object] = json.loads((folder / "data" / stage / "metrics.json").read_text())
    return content

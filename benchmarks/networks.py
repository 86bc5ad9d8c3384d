"""Every network through the whole pipeline: what compression keeps and gains on each.

    python benchmarks/networks.py [ARCH …]

Each runs in a clone of its own, .modelpress/networks/ARCH, with the budget below, by `dvc repro`; one that was
interrupted goes on. The results keep a row for every network. Timings are those of stage evaluate: candidates
in turn, one image on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import RESULTS, about

from flows.cli import overrides
from tasks.core.common.files import read_json, write_json

ROOT = Path(__file__).parents[1]
RAW = Path("data/raw/fashion-mnist")
RESULT = RESULTS / "networks.json"
PLAIN = ("tune.trials=0", "quantize.schemes=[fp32,int8,int8_mixed]", "prune.ratios=[0.5]", "press.trials=50")
# Epochs that 2 cores can afford; a larger network learns as much from fewer.
BUDGETS: dict[str, tuple[str, ...]] = {
    "resnet_small": ("train.epochs=6", "prune.epochs=5"),
    "mobilenet_v3_small": (
        "train.epochs=8",
        "train.lr=0.1",
        "prune.epochs=6",
        "quantize.schemes=[fp32,int8,int8_mixed,int8_qat]",
        "select.max_drop_points=1.0",
    ),
    "mobilenet_v2": ("train.epochs=4", "train.lr=0.1", "prune.epochs=3", "press.finetunes=2"),
    "efficientnet_b0": (  # at lr 0.1 it does not settle in so few epochs
        "train.epochs=4",
        "train.lr=0.03",
        "+train.clip_norm=1.0",
        "+train.stochastic_depth=0.0",
        "prune.epochs=6",
        "prune.lr=0.03",
        "+prune.relu=true",
        "press.trials=0",  # an epoch of a design that is hardly smaller takes four minutes
        "select.max_drop_points=1.0",
    ),
    "resnet18": (
        "train.epochs=2",
        "train.lr=0.1",
        "prune.epochs=2",
        "press.finetunes=2",
        "+press.sensitivity=[0.5]",
    ),
}
TARGETS = {  # times as fast, times as small, points lost at most
    "resnet_small": (4.0, 8.0, 0.5),
    "resnet18": (4.0, 8.0, 0.5),
    "mobilenet_v3_small": (2.5, 4.0, 1.0),
    "efficientnet_b0": (2.5, 4.0, 1.0),
}


def project(arch: str) -> Path:
    """A clone of the last commit for one network; one that is there is brought up to date, results kept."""
    folder = ROOT / ".modelpress" / "networks" / arch
    if folder.exists():
        subprocess.run(["git", "fetch", "-q"], cwd=folder, check=True)
        subprocess.run(["git", "reset", "-q", "--hard", "@{upstream}"], cwd=folder, check=True)
    else:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        shutil.copytree(ROOT / RAW, folder / RAW)
    (folder / "dvc.lock").unlink(missing_ok=True)
    lock = folder / ".modelpress" / "dvc.lock"
    if lock.exists():
        shutil.copy(lock, folder / "dvc.lock")
    width = () if arch == "resnet_small" else ("train.width=32",)
    _, changed = overrides.apply(folder, [f"train.arch={arch}", *width, *PLAIN, *BUDGETS[arch]])
    overrides.write(folder, changed)
    return folder


def run(folder: Path) -> None:
    """Bring the clone up to date, with its own code."""
    scripts = str(Path(sys.executable).parent)  # dvc.yaml says `python`
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": path}
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, env=environment, check=False)
    if (folder / "dvc.lock").exists():
        shutil.copy(folder / "dvc.lock", folder / ".modelpress" / "dvc.lock")
    if done.returncode:
        raise SystemExit(f"dvc repro in {folder} ended with {done.returncode}")


def row(arch: str, folder: Path) -> dict[str, Any]:
    """What the run selected, and every candidate."""
    selected = read_json(folder / "data/select/metrics.json")
    accuracy = read_json(folder / "data/evaluate/accuracy.json")
    latency = read_json(folder / "data/evaluate/latency.json")["candidates"]
    faster, smaller, lost = TARGETS.get(arch, (0.0, 0.0, 100.0))
    return {
        "budget": [*PLAIN, *BUDGETS[arch]],
        "selected": selected,
        "candidates": {
            name: {
                **{key: entry[key] for key in ("accuracy", "drop_points", "drop_points_ci95", "size_bytes")},
                **{key: entry[key] for key in ("nodes_int8", "nodes_fp32", "macs", "parameters")},
                "speedup_b1": latency[name]["b1_t1"]["speedup"],
                "speedup_b64": latency[name]["b64_t1"]["speedup"],
            }
            for name, entry in accuracy.items()
        },
        "target": {"speedup_b1": faster, "size_ratio": smaller, "drop_points": lost},
        "met": selected["speedup_b1"] >= faster
        and selected["size_ratio"] >= smaller
        and selected["drop_points"] <= lost
        and selected["drop_points_ci95"][1] <= 1.0,
    }


def main() -> None:
    """Run the networks that are named, or all, and write their rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("arch", nargs="*", default=list(BUDGETS), help=", ".join(BUDGETS))
    for arch in parser.parse_args().arch:
        if arch not in BUDGETS:
            raise SystemExit(f"{arch}: no budget for it; there is one for {', '.join(BUDGETS)}")
        folder = project(arch)
        run(folder)
        found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        rows = {**found.get("networks", {}), arch: {**row(arch, folder), **about(("torch", "onnxruntime"))}}
        write_json(RESULT, {"networks": rows})
        print(f"{arch}: {json.dumps(rows[arch]['selected'])}", flush=True)


if __name__ == "__main__":
    main()

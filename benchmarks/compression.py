"""Ours against its peers: the same dense model, calibration images, test set and clock, in one run.

    make compression                       # of the run in data/
    make compression ARGS="--run FOLDER"   # of another; the results keep a table for every architecture

Reads data/ingest, data/train, data/quantize and data/select of a finished run, and its params.yaml. Every
peer makes its model (benchmarks/peers.py) from the float graph behind the raw image. Then all models take
the same uint8 images: what stands before the dense graph is put before the peers' as well. All are timed in
this process, in turn, on one thread: the ONNX models in one and the same ONNX Runtime, the others in
OpenVINO.

Against every peer stands the fastest of our models that is right about at least as many test images. One of
ours is made here, for those who have no accuracy to give away: pruned mildly, and trained for long, from labels as
much as from the dense model (CAREFUL).
The environment that this needs, with all peers, is what `make compression` sets up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from common import RESULTS, about
from contenders import Contender, Front, OnnxModel, OpenVinoModel, cut_front, paste_front
from numpy.typing import NDArray
from peers import PEERS, QUIET

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json, write_json
from tasks.core.config.params_file import load_pipeline
from tasks.core.data.dataset import Dataset, balanced, open_dataset
from tasks.core.evaluation.candidates import DENSE, candidate_folders, read_result
from tasks.core.evaluation.stats import drop_interval
from tasks.core.runtime.latency import compare, interleaved

ROOT = Path(__file__).parents[1]
RESULT = RESULTS / "compression.json"
REPEATS = {1: 2000, 64: 200}  # timed runs of every model, by batch
RESAMPLES, SEED = 10_000, 0
LIMIT_S = 3600  # a peer that takes longer is left out
TARGET = 1.5
CAREFUL = {"ratio": "0.4", "scheme": "int8", "epochs": 20, "distill_weight": 0.5}
PACKAGES = ("onnxruntime", "openvino", "nncf", "olive-ai", "onnx-neural-compressor", "onnx", "numpy", "torch")

Rows = dict[str, dict[str, Any]]


def our_models(run: Path, scratch: Path) -> dict[str, Path]:
    """Every candidate of the run, the reference first, and the careful one."""
    folders = candidate_folders(run / "data/quantize", run / "data/press", run / "params.yaml")
    models = {name: folder / "model.onnx" for name, folder in folders.items()}
    return {**models, "careful": careful(run, scratch) / "model.onnx"}


def careful(run: Path, scratch: Path) -> Path:
    """Prune and quantize the dense model of a run as CAREFUL says, all else as its params.yaml says."""
    settings = yaml.safe_load((run / "params.yaml").read_text(encoding="utf-8"))
    settings["prune"] |= {key: CAREFUL[key] for key in ("epochs", "distill_weight")}
    (scratch / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    pruned, made = scratch / "pruned", scratch / "careful"
    inputs = ["--params", scratch / "params.yaml", "--data", run / "data/ingest"]
    inputs += ["--policy", run / "data/augment/policy.json"]
    for stage, *arguments in (
        ("prune", "--model", run / "data/train", "--ratio", CAREFUL["ratio"], "--out", pruned),
        ("quantize", "--model", pruned, "--scheme", CAREFUL["scheme"], "--out", made),
    ):
        subprocess.run([sys.executable, "-m", f"tasks.{stage}", *inputs, *arguments], cwd=ROOT, check=True)
    return made


def peer_models(
    dense: Path, calibration_NHWC: NDArray[np.uint8], dataset: Dataset, scratch: Path
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Every peer's model, and of those that gave none, why."""
    graph = onnx.load(dense)
    front = cut_front(graph)
    onnx.save(graph, scratch / "dense.onnx")
    for name, images_NHWC in (("calibration", calibration_NHWC), ("validation", dataset.val.raw_N)):
        np.save(scratch / f"{name}.npy", normalized(images_NHWC, front))
    np.save(scratch / "labels.npy", dataset.val.labels_N)
    models: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name in PEERS:
        print(f"making {name}", flush=True)
        try:
            make(name, scratch)
            models[name] = load(scratch / name, front)
            models[name].predict(dataset.val.raw_N[:1])
        except Exception as error:  # whatever a peer stumbles over: its row says so, the others go on
            models.pop(name, None)
            missing[name] = " ".join(str(error).split())[:300]
            print(f"no {name}: {missing[name]}", flush=True)
    return models, missing


def normalized(images_NHWC: NDArray[np.uint8], front: Front) -> NDArray[np.float32]:
    """x_NCHW, as `front` makes it."""
    zero, scale = front.zero_and_scale()
    x_NHWC = (images_NHWC.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))


def make(name: str, scratch: Path) -> None:
    """Let a peer write `scratch`/NAME. Raises StageFailed, with the last thing it said."""
    command = [sys.executable, str(Path(__file__).with_name("peers.py")), name]
    command += ["--model", "dense.onnx", "--calibration", "calibration.npy"]
    command += ["--validation", "validation.npy", "labels.npy", "--out", name]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"ended with {done.returncode}"
        raise StageFailed(said.splitlines()[-1])


def load(folder: Path, front: Front) -> Contender:
    """A peer's model, which then takes raw images."""
    if (folder / "model.xml").exists():
        return OpenVinoModel(folder / "model.xml", *front.zero_and_scale())
    model = onnx.load(folder / "model.onnx")
    paste_front(model, front)
    onnx.save(model, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx")


def accuracies(models: Mapping[str, Contender], dataset: Dataset) -> Rows:
    """What the test set says of every model, and its size."""
    labels_N = np.asarray(dataset.test.labels_N)
    right = {name: model.predict(dataset.test.raw_N).argmax(1) == labels_N for name, model in models.items()}
    rows: Rows = {}
    for name, model in models.items():
        int8, weighted = model.int8_share()
        rows[name] = {
            "accuracy": float(right[name].mean()),
            "drop_points": float((right[DENSE].mean() - right[name].mean()) * 100),
            "drop_points_ci95": drop_interval(right[DENSE], right[name], RESAMPLES, SEED),
            "size_bytes": model.size_bytes,
            "size_ratio": round(models[DENSE].size_bytes / model.size_bytes, 3),
            "nodes_int8": int8,
            "nodes_weighted": weighted,
        }
    return rows


def rival(rows: Rows, batch: int, peer: str) -> str | None:
    """Our fastest model that is no less accurate than `peer`; None where there is none."""
    ours = [n for n, row in rows.items() if n not in PEERS and row["accuracy"] >= rows[peer]["accuracy"]]
    return max(ours, key=lambda name: rows[name][f"speedup_b{batch}"], default=None)


def against(seconds: Mapping[str, NDArray[np.float64]], ours: str | None, peer: str) -> dict[str, Any]:
    """How many times faster `ours` is than `peer`, round by round; 0 where there is none of ours."""
    if ours is None:
        return {"peer": peer, "ours": None, "times_faster": 0.0, "ci95": (0.0, 0.0)}
    latency = compare({name: seconds[name] for name in (peer, ours)}, peer)[ours]
    return {"peer": peer, "ours": ours, "times_faster": latency.speedup, "ci95": latency.speedup_ci95}


def measure(models: Mapping[str, Contender], dataset: Dataset, selected: str) -> dict[str, Any]:
    """Accuracy and speed of all models; at each batch the peer that ours are least ahead of at no less
    accuracy, and the selected one against the fastest peer."""
    rows = accuracies(models, dataset)
    peers = [name for name in rows if name in PEERS]
    closest: dict[str, Any] = {}
    fastest: dict[str, Any] = {}
    for batch, repeats in REPEATS.items():
        print(f"timing {len(models)} models at batch {batch}", flush=True)
        images_NHWC = np.array(dataset.test.raw_N[:batch])
        seconds = interleaved({name: model.call(images_NHWC) for name, model in models.items()}, repeats)
        for name, latency in compare(seconds, DENSE).items():
            rows[name][f"p50_ms_b{batch}"] = latency.p50_ms
            rows[name][f"speedup_b{batch}"] = latency.speedup
            rows[name][f"speedup_b{batch}_ci95"] = latency.speedup_ci95
        if peers:
            duels = [against(seconds, rival(rows, batch, peer), peer) for peer in peers]
            closest[f"b{batch}"] = min(duels, key=lambda duel: duel["times_faster"])
            peer = max(peers, key=lambda name: rows[name][f"speedup_b{batch}"])
            fastest[f"b{batch}"] = against(seconds, selected, peer)
    return {"models": rows, "no_less_accurate": closest, "selected_against_fastest": fastest}


def table(rows: Rows, missing: Mapping[str, str], selected: str) -> str:
    """The rows as text; a star marks the selected model, and what gave no model says why."""
    lines = [f"{'':24}{'accuracy':>9}{'points lost':>23}{'batch 1':>25}{'batch 64':>25}{'size':>10}  int8"]
    for name, row in rows.items():
        low, high = row["drop_points_ci95"]
        cells = [f"{name + ' *' * (name == selected):24}{row['accuracy']:9.2%}"]
        cells.append(f"{row['drop_points']:6.2f} ({low:.2f} to {high:.2f})".rjust(23))
        for batch in REPEATS:
            low, high = row[f"speedup_b{batch}_ci95"]
            cells.append(f"{row[f'speedup_b{batch}']:.2f} x ({low:.2f} to {high:.2f})".rjust(25))
        cells.append(f"{row['size_bytes'] / 1e3:7.0f} kB  {row['nodes_int8']}/{row['nodes_weighted']}")
        lines.append("".join(cells))
    return "\n".join([*lines, *(f"{name:24} none: {reason}" for name, reason in missing.items())])


def passed(closest: Mapping[str, Any]) -> bool:
    """Whether at no less accuracy ours are fast enough against every peer, at every batch."""
    return bool(closest) and all(duel["times_faster"] >= TARGET for duel in closest.values())


def compared(run: Path) -> tuple[str, dict[str, Any]]:
    """The architecture of a finished run and all that the results keep of it.

    Raises:
        BadInput: a file of the run is missing.
    """
    selected = read_result(run / "data/select/metrics.json")["selected"]
    spec = read_result(run / "data/train/model.json")
    dataset = open_dataset(run / "data/ingest")
    params = load_pipeline(run / "params.yaml").quantize
    rows = balanced(dataset.train.labels_N, params.calibration_images, params.seed)  # as in quantize
    calibration_NHWC = dataset.train.raw_N[rows]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ours = our_models(run, scratch)
        peers, missing = peer_models(ours[DENSE], calibration_NHWC, dataset, scratch)
        models: dict[str, Contender] = {name: OnnxModel(path) for name, path in ours.items()}
        measured = measure({**models, **peers}, dataset, selected)
    return spec["arch"], {
        **measured,
        "selected": selected,
        "missing": missing,
        "peers": {name: f"{peer.package}: {peer.about}" for name, peer in PEERS.items()},
        "image_shape": spec["image_shape"],
        "calibration_images": len(calibration_NHWC),
        "test_images": len(dataset.test),
        "threads": 1,
        "careful": CAREFUL,
        "target_ratio": TARGET,
        "passed": passed(measured["no_less_accurate"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=ROOT, help="folder with data/ of a finished run")
    run = parser.parse_args().run
    os.environ.update(QUIET)
    try:
        circumstances = about(PACKAGES)
        arch, result = compared(run)
    except PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed here: `make compression` sees to it") from None
    except (BadInput, StageFailed) as error:
        raise SystemExit(str(error)) from None
    print(table(result["models"], result["missing"], result["selected"]))
    print(
        json.dumps({key: result[key] for key in ("no_less_accurate", "selected_against_fastest")}, indent=2)
    )
    known = read_json(RESULT) if RESULT.exists() else {}
    write_json(RESULT, {**known, arch: {**result, **circumstances}})
    print(RESULT)


if __name__ == "__main__":
    main()

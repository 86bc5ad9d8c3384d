"""Folders under data/ as the stages write them, made up in milliseconds: for tests of what reads them.

The numbers are plausible and follow from a seed; the models are real, but tiny and untrained.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from onnx import TensorProto, checker, helper, numpy_helper
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from tasks.core.data.dataset import Split
from tasks.core.evaluation.candidates import DENSE_NETWORK, DENSE_WEIGHTS
from tasks.core.runtime import promise

CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
FINGERPRINT = {
    "cpu_model": "Example CPU @ 2.60GHz",
    "isa": ["avx2", "avx512f", "avx512_vnni"],
    "vnni": True,
    "u8s8_saturates": False,
    "threads": 2,
    "onnxruntime": "1.32.0",
    "platform": "Linux x86_64",
}
PARAMS: dict[str, Any] = {
    "ingest": {"source": "data/raw/example"},
    "tune": {
        "trials": 12,
        "space": {"lr": {"low": 0.01, "high": 0.4, "log": True}, "width": {"choices": [16, 24, 32]}},
    },
    "prune": {"ratios": [0.25, 0.5, 0.625]},
    "quantize": {"schemes": ["fp32", "int8"]},
}


@dataclass(frozen=True)
class Made:
    """What one candidate measures; the drop is in points, `half` is half of its interval."""

    name: str
    drop: float = 0.0
    half: float = 0.0
    ms: float = 0.18
    size: int = 331_000
    parameters: int = 78_000
    accuracy: float | None = None  # None: the dense model's, less the drop
    sparsity: float = 0.0
    warning: str = ""
    unknown: tuple[str, ...] = ()  # classes

    @property
    def mcnemar_p(self) -> float:
        """The p-value that a normal difference with this interval has."""
        return math.erfc(1.96 * abs(self.drop) / self.half / math.sqrt(2)) if self.half else 1.0

    @property
    def nodes(self) -> list[dict[str, str]]:
        """20 weighted nodes; in int8 all but two depthwise ones and the last."""
        names = ["conv2d", *(f"conv2d_{i}" for i in range(1, 19)), "linear"]
        reasons = dict.fromkeys(names, "") | dict.fromkeys(("conv2d_4", "conv2d_9"), "depthwise")
        reasons["linear"] = "last layer"
        if not self.name.endswith("-int8"):
            reasons = dict.fromkeys(names, "not quantized")
        return [
            {
                "name": name,
                "op": "Gemm" if name == "linear" else "Conv",
                "precision": "fp32" if reason else "int8",
                "reason": reason,
            }
            for name, reason in reasons.items()
        ]

    @property
    def node_counts(self) -> dict[str, int]:
        """As core.quantization counts them."""
        int8 = sum(node["precision"] == "int8" for node in self.nodes)
        return {"nodes_int8": int8, "nodes_fp32": len(self.nodes) - int8}


CANDIDATES = (
    Made("dense-fp32", ms=0.182, size=331_204),
    Made("dense-int8", 0.05, 0.12, 0.109, 114_310),
    Made("prune-0.25-fp32", 0.14, 0.29, 0.121, 189_500, 44_100),
    Made("prune-0.25-int8", 0.21, 0.30, 0.104, 79_800, 44_100),
    Made("prune-0.5-fp32", 0.46, 0.41, 0.0571, 92_300, 20_900),
    Made("prune-0.5-int8", 0.51, 0.42, 0.0668, 52_700, 20_900),
    Made("prune-0.625-fp32", 1.42, 0.47, 0.0412, 61_400, 12_800),
    Made("prune-0.625-int8", 1.55, 0.49, 0.0497, 43_100, 12_800),
)


@dataclass(frozen=True)
class Folders:
    """Where `build` has put everything; keys are the arguments of select and report."""

    root: Path
    classes: list[str] = field(default_factory=list)

    @property
    def select(self) -> dict[str, Path]:
        names = {
            "evaluation": "evaluate", "candidates": "quantize", "press": "press", "baselines": "baselines",
            "data": "ingest", "train": "train",
        }  # fmt: skip
        names |= {"tune": "tune", "settings": "params.yaml", "metrics": "metrics.json"}
        return self._under(names)

    @property
    def report(self) -> dict[str, Path]:
        names = {"evaluation": "evaluate", "data": "ingest", "recipe": "recipe", "augment": "augment"}
        names["tune"] = "tune"
        names |= {"train": "train", "prune": "prune", "press": "press", "baselines": "baselines"}
        names["selection"] = "select"
        return {**self._under(names), "settings": self.root / "params.yaml"}

    def _under(self, names: dict[str, str]) -> dict[str, Path]:
        return {argument: self.root / folder for argument, folder in names.items()}


def build(
    root: Path,
    classes: Sequence[str] = CLASSES,
    candidates: Sequence[Made] = CANDIDATES,
    tuned: bool = True,
    mistaken: int = 30,
    channels: int = 1,
    side: int = 28,
    hostile: str = "",
    per_class: int = 100,
    pressed: bool = True,
    settled: bool = True,
    pruned: Mapping[float, dict[str, Any]] | None = None,
    simple: float = 0.85,
) -> Folders:
    """All folders but data/select. `hostile` is put wherever text comes from the data; `pruned` is put into
    the metrics.json of prune at these ratios; `simple` is the best baseline's accuracy."""
    root.mkdir(parents=True, exist_ok=True)
    names = list(classes)
    params = json.loads(json.dumps(PARAMS))
    if not tuned:
        params["tune"] = {"trials": 0}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    _ingest(root / "ingest", names, channels, side, hostile, per_class)
    _recipe(root / "recipe", settled, hostile)
    _augment(root / "augment", root / "ingest", hostile)
    _tune(root / "tune", tuned)
    _train(root / "train")
    for ratio in PARAMS["prune"]["ratios"]:
        _prune(root / "prune" / str(ratio), ratio, (pruned or {}).get(ratio, {}))
    _press(root / "press", pressed, hostile)
    for made in candidates:
        _quantize(root / "quantize" / made.name, made, side, channels, len(names))
    _baselines(root / "baselines", simple)
    _evaluate(root / "evaluate", names, candidates, mistaken, per_class, simple)
    return Folders(root, names)


def linear_model(
    weights_HK: np.ndarray, bias_K: np.ndarray, width: int, channels: int, work: int = 1
) -> bytes:
    """An ONNX model of images [N, H, width, channels] uint8: the means of the rows, times `weights_HK`,
    plus `bias_K`. Each row is repeated `work` times first, which changes nothing but the time it takes."""
    high, classes = weights_HK.shape
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Tile", ["pixels", "repeats"], ["repeated"]),
        helper.make_node("ReduceMean", ["repeated", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", high, width, channels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(np.array([1, 1, work, 1]), "repeats"),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(weights_HK.astype(np.float32), "weights"),
            numpy_helper.from_array(bias_K.astype(np.float32), "bias"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def rows_model(bias: float = 0.0, work: int = 1) -> bytes:
    """A `linear_model` of 4x4 grey images whose logits are the means of the rows; the first class gets
    `bias` on top."""
    return linear_model(np.eye(4), np.array([bias, 0, 0, 0]), 4, 1, work)


SLOW_ROWS = rows_model(work=50_000)  # a tenth of a millisecond at least


def ship(folder: Path, model: bytes, reference: bytes = SLOW_ROWS, speedup: float = 2.0) -> Path:
    """What stage select ships of rows models, in `folder`: `model`, checked on 240 random images of which
    the brightest row is the label, and the promise that it is `speedup` times as fast as `reference`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / promise.MODEL
    path.write_bytes(model)
    path.with_name(promise.REFERENCE).write_bytes(reference)
    images_NHWC = np.random.default_rng(0).integers(0, 256, (240, 4, 4, 1), dtype=np.uint8)
    test = Split(images_NHWC, images_NHWC.mean((2, 3)).argmax(1))
    promise.write(
        folder,
        test,
        0.1,
        0.1 * speedup,
        speedup,
        max_drop_points=1.0,
        fingerprint=FINGERPRINT,
        unsure_below=0.0,
    )
    save_file({"rows": np.arange(4, dtype=np.float32)}, folder / DENSE_WEIGHTS)
    (folder / DENSE_NETWORK).write_text("{}", encoding="utf-8")
    path.with_name("labels.json").write_text('["top", "second", "third", "bottom"]', encoding="utf-8")
    path.with_name("model_card.md").write_text("# `dense-int8`\n\nThe brightest row.\n", encoding="utf-8")
    return path


def _ingest(folder: Path, classes: list[str], channels: int, side: int, hostile: str, per_class: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    counts = {}
    for split, number in (("train", 8), ("val", 2), ("test", 5)):
        labels = np.repeat(np.arange(len(classes)), number)
        images = np.stack([_picture(rng, label, side, channels) for label in labels.tolist()])
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_labels.npy", labels.astype(np.int64))
        share = {"train": 6, "val": 1, "test": 1}[split]
        counts[split] = dict.fromkeys(classes, share * per_class)
    about = {
        "classes": classes,
        "image_shape": [side, side, channels],
        "counts": counts,
        "channel_mean": [0.286] * channels,
        "channel_std": [0.353] * channels,
    }
    _json(folder / "dataset.json", {**about, "source": "data/raw/example", "digest": "5f" * 32})
    total = sum(sum(split.values()) for split in counts.values())
    _json(
        folder / "report.json",
        {
            **{key: about[key] for key in ("counts", "channel_mean", "channel_std")},
            "found": total + 3,
            "kept": total,
            "left_out": [
                {"path": f"shirts/{hostile}broken.png", "reason": "truncated file"},
                {"path": "bags/empty.jpg", "reason": "no bytes"},
                {"path": "bags/huge.png", "reason": "more than 50 megapixels"},
            ],
            "left_out_counts": {"truncated file": 1, "no bytes": 1, "more than 50 megapixels": 1},
            "duplicates": {"within": 4, "across_splits": 1, "examples": [[f"a/{hostile}1.png", "b/2.png"]]},
            "conflicting_labels": 1,
            "modes": {"L": total - 2, "RGBA": 2},
            "sizes": {f"{side}x{side}": total - 5, "64x48": 5},
            "resized": 5,
            "rules": ["Transparent pixels are laid over white.", "The first frame of an animation is used."],
            "warnings": [f"1 image stands in two splits: a/{hostile}1.png"],
        },
    )


def _picture(rng: np.random.Generator, label: int, side: int, channels: int) -> np.ndarray:
    """A polygon with label + 3 corners, somewhere about the middle."""
    image = Image.new("RGB" if channels == 3 else "L", (side, side))
    middle = [float(v) for v in side / 2 + rng.uniform(-side / 10, side / 10, 2)]
    grey = int(rng.integers(120, 255))
    fill: Any = (grey, 255 - grey, 90) if channels == 3 else grey
    circle = (middle[0], middle[1], side * float(rng.uniform(0.25, 0.4)))
    draw = ImageDraw.Draw(image)
    draw.regular_polygon(circle, label % 9 + 3, rotation=int(rng.integers(90)), fill=fill)
    return np.asarray(image, dtype=np.uint8).reshape(side, side, channels)


def _recipe(folder: Path, settled: bool, hostile: str) -> None:
    folder.mkdir()
    choice = {"key": "train.arch", "value": "convnet_small", "reason": f"90.0% in a trial {hostile}"}
    choices = {"budget": "quick", "choices": [choice] if settled else [], "notes": ["vgg11 was not tried"]}
    (folder / "choices.json").write_text(json.dumps(choices), encoding="utf-8")
    lines = ["number,state,question,variant,accuracy,loss,gain,error,epochs,images,chosen"]
    if settled:
        lines += ["0,complete,augmentation,none of them,0.8,0.61,,,2,1000,False"]
        lines += ["1,complete,augmentation,shifts,0.9,0.35,0.26,0.02,2,1000,True"]
        lines += ["2,diverged,learning rate,0.01,0.0,inf,-inf,0.0,2,1000,False"]
    (folder / "trials.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _augment(folder: Path, data: Path, hostile: str) -> None:
    folder.mkdir()
    about = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    _json(
        folder / "policy.json",
        {
            **{key: about[key] for key in ("image_shape", "channel_mean", "channel_std")},
            "operations": {
                "flip_horizontal": {},
                "crop": {"pixels": 2},
                "affine": {"rotate": 8.0, "scale": 0.1, "translate": 0.0},
            },
            "left_out": {"hue": f"the images are grey{hostile}", "saturation": "the images are grey"},
            "seed": 0,
        },
    )
    images = np.load(data / "train_images.npy")
    rows = [np.concatenate(list(images[i : i + 8]), axis=1) for i in (0, 8, 16, 24) if i + 8 <= len(images)]
    sheet = np.concatenate(rows or [images[0]])
    Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(folder / "contact_sheet.png")


def _tune(folder: Path, tuned: bool) -> None:
    folder.mkdir()
    columns = ["number", "state", "value", "epochs", "lr", "width"]
    rng = np.random.default_rng(1)
    trials: list[list[Any]] = []
    for number in range(12 if tuned else 0):
        pruned = number % 4 == 2
        value = round(float(0.83 + 0.004 * number + rng.uniform(-0.03, 0.03)), 4)
        rate = round(float(10 ** rng.uniform(-2, -0.4)), 6)
        trials.append(
            [
                number,
                "pruned" if pruned else "complete",
                None if pruned else value,
                1 if pruned else 3,
                rate,
                24,
            ]
        )
    complete = [trial for trial in trials if trial[1] == "complete"]
    best = np.maximum.accumulate([trial[2] for trial in complete]).tolist() if complete else []
    history = [[trial[0], trial[2], top] for trial, top in zip(complete, best, strict=True)]
    _csv(folder / "trials.csv", columns if tuned else columns[:4], trials)
    _csv(folder / "history.csv", ["trial", "value", "best"], history)
    _csv(
        folder / "importances.csv", ["param", "importance"], [["lr", 0.78], ["width", 0.22]] if tuned else []
    )
    (folder / "best.yaml").write_text("lr: 0.142\nwidth: 24\n" if tuned else "{}\n", encoding="utf-8")
    metrics = {
        "trials": 12,
        "pruned": 3,
        "diverged": 1,
        "failed": 0,
        "best_value": max(best, default=None),
        "epochs_spent": 30,
        "epochs_without_pruning": 36,
        "sampler": "tpe",
        "pruner": "hyperband",
        "not_begun": 0,
        "begun_anew": 0,
        "earlier": 0,
    }
    _json(folder / "metrics.json", metrics if tuned else {"trials": 0})


def _history(epochs: int, last: float, steps: int = 0) -> list[list[Any]]:
    """Curves that rise to `last`, falling back whenever a step of pruning begins."""
    rows = []
    for epoch in range(epochs):
        since = epoch % max(1, epochs // steps) if steps else epoch
        gap = (0.05 if steps else 0.16) / (1 + 1.4 * since)
        value = last - gap * (1 if steps else (1 - epoch / epochs) ** 0.5)
        rows.append(
            [epoch + 1, 0.1 * (1 - epoch / epochs), 2.4 * (1 - value), value + 0.01, 2.9 * (1 - value), value]
        )
    return rows


HISTORY = ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]


def _train(folder: Path) -> None:
    folder.mkdir()
    _csv(folder / "history.csv", HISTORY, _history(10, 0.926))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "model.json").write_text("{}", encoding="utf-8")
    metrics = {"val_accuracy": 0.926, "val_loss": 0.21, "epochs": 10, "parameters": 78_026, "threads": 2}
    _json(folder / "metrics.json", metrics)


def _prune(folder: Path, ratio: float, changes: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    _csv(folder / "history.csv", HISTORY, _history(6, 0.926 - 0.02 * ratio, steps=3))
    metrics = {
        "val_accuracy": 0.926 - 0.02 * ratio,
        "parameters": int(78_026 * (1 - ratio) ** 2),
        "macs": 3_000_000,
        "collapsed": False,
        "kept_whole": [{"layer": "head", "reason": "its outputs are the classes"}],
    }
    _json(folder / "metrics.json", metrics | changes)


def _press(folder: Path, pressed: bool, hostile: str) -> None:
    folder.mkdir()
    groups = [f"stem.0{hostile}", "blocks.0.conv1", "blocks.1.conv1"]
    columns = ["number", "state", "accuracy", "latency_ms", "speedup", "size_bytes", "size_ratio"]
    columns += [
        "hypervolume",
        "front",
        "candidate",
        *(f"ratio.{group}" for group in groups),
        "without.blocks.0",
        "criterion",
        "int8",
        "float_layers",
    ]
    rng = np.random.default_rng(3)
    trials = []
    for number in range(20 if pressed else 0):
        speedup = 1 + number / 4
        front = number % 5 == 4
        accuracy = round(0.9 - 0.03 * number - (0 if front else rng.uniform(0, 0.2)), 4)
        row = [number, "complete", accuracy, 0.2 / speedup, speedup, 300_000 - 9_000 * number]
        candidate = {9: "press-1", 14: "press-2"}.get(number, "")
        row += [100 / (100 - 3 * number), 1 + number / 9, front, candidate]
        row += [0.3, 0.4, 0.5, number == 9, "l2", True, number % 3]
        trials.append(row)
    _csv(folder / "trials.csv", columns, trials)
    sensitivity = [["", 0.0, True, 0.9, 0.2, 1.0, 300_000]] if pressed else []
    for i, group in enumerate(groups if pressed else []):
        for ratio in (0.25, 0.5, 0.75):
            accuracy = 0.9 - ratio * (i + 1) / 5
            sensitivity.append([group, ratio, True, accuracy, 0.2 - ratio / 9, 1 + ratio, 250_000])
    if pressed:
        sensitivity.append([f"blocks.0{hostile}", 1.0, True, 0.87, 0.17, 1.2, 280_000])
    columns = ["group", "ratio", "int8", "accuracy", "latency_ms", "speedup", "size_bytes"]
    _csv(folder / "sensitivity.csv", columns, sensitivity)
    found = {
        f"press-{i}": {
            "trial": 4 + 5 * i,
            "trained": i == 2,
            "val_drop_points": 0.2,
            "val_drop_high": 0.5,
            "within_bar": True,
        }
        for i in (1, 2)
    }
    metrics: dict[str, Any] = (
        {"trials": 20, "front": 4, "hypervolume": 3.1, "objective": "fastest", "candidates": found}
        if pressed
        else {"trials": 0, "candidates": {}}
    )
    _json(folder / "metrics.json", metrics)
    for name in metrics["candidates"]:
        made = folder / name.removeprefix("press-")
        made.mkdir()
        _csv(made / "history.csv", HISTORY, _history(5, 0.921) if found[name]["trained"] else [])
        _json(made / "metrics.json", {"parameters": 21_000})


def _quantize(folder: Path, made: Made, side: int, channels: int, classes: int) -> None:
    folder.mkdir(parents=True)
    weights_HK = np.random.default_rng(list(made.name.encode())).normal(size=(side, classes))
    (folder / "model.onnx").write_bytes(linear_model(weights_HK, np.zeros(classes), side, channels))
    scheme = made.name.rsplit("-", 1)[1]
    metrics = {"scheme": scheme, "parameters": made.parameters, "macs": 12_000_000, "nodes": made.nodes}
    metrics |= {**made.node_counts, "graph_difference": 1e-5, "opset": 20, "warning": made.warning}
    _json(folder / "metrics.json", metrics)


def _baselines(folder: Path, simple: float) -> None:
    folder.mkdir()
    accuracy = {
        name: {"val": value, "test": value} for name, value in (("majority", 0.1), ("random forest", simple))
    }
    _json(
        folder / "metrics.json",
        {"best": "random forest", "features": "reduced pixels", "examples": 10_000, "accuracy": accuracy},
    )


def _evaluate(
    folder: Path, classes: list[str], candidates: Sequence[Made], mistaken: int, per_class: int, simple: float
) -> None:
    folder.mkdir()
    dense, rows = 0.9231, {}
    for made in candidates:
        confusion = _confusion(len(classes), per_class)
        recall = {name: confusion[i][i] / per_class for i, name in enumerate(classes)}
        accuracy = dense - made.drop / 100 if made.accuracy is None else made.accuracy
        margin = 100 * (accuracy - simple)
        rows[made.name] = {
            "accuracy": accuracy,
            "margin_points": margin,
            "margin_points_ci95": [margin - 0.8, margin + 0.8],
            "no_better_than_chance": made.unknown,
            "macro_f1": dense - made.drop / 100 - 0.001,
            "ece": 0.021,
            "temperature": 0.62,
            "unsure": {"precision": 0.98, "below": 0.713, "answered": 0.91, "right": 0.985},
            "recall": recall,
            "confusion": confusion,
            "size_bytes": made.size,
            "size_compressed_bytes": int(made.size * 0.91 * (1 - 0.8 * made.sparsity)),
            "sparsity": made.sparsity,
            "parameters": made.parameters,
            "macs": made.parameters * 150,
            **made.node_counts,
            "nodes": made.nodes,
            **({"warning": made.warning} if made.warning else {}),
            "drop_points": made.drop,
            "drop_points_ci95": [made.drop - made.half, made.drop + made.half],
            "mcnemar_p": made.mcnemar_p,
            "val_accuracy": accuracy,
            "val_drop_points": made.drop,
            "val_drop_points_ci95": [made.drop - made.half, made.drop + made.half],
            "val_drop_error": made.half / 1.96,
        }
    _json(folder / "accuracy.json", rows)
    reference = next((made.ms for made in candidates if made.name == "dense-fp32"), 1.0)
    latencies = {made.name: _latency(made.ms, reference / made.ms) for made in candidates}
    _json(folder / "latency.json", {"fingerprint": FINGERPRINT, "candidates": latencies})
    number = min(mistaken, 5 * len(classes))
    wrong = [
        [made.name, i, classes[i // 5], classes[(i // 5 + 1) % len(classes)], round(0.999 - 0.004 * i, 4)]
        for made in candidates
        for i in range(number)
    ]
    _csv(folder / "mistakes.csv", ["candidate", "index", "true", "predicted", "probability"], wrong)


def _confusion(classes: int, per_class: int) -> list[list[int]]:
    """Most of each row on the diagonal, some of it beside it."""
    rng = np.random.default_rng(2)
    matrix = np.zeros((classes, classes), dtype=int)
    for i in range(classes):
        wrong = int(per_class * rng.uniform(0.02, 0.22))
        for _ in range(wrong):
            matrix[i, (i + int(rng.choice([1, 2, 4], p=[0.6, 0.3, 0.1]))) % classes] += 1
        matrix[i, i] += per_class - wrong
    return [[int(n) for n in row] for row in matrix]


def _latency(ms: float, speedup: float) -> dict[str, Any]:
    scales = {"b1_t1": 1.0, "b1_tall": 0.72, "b64_t1": 48.0, "b64_tall": 27.0}
    spread = 0.0 if speedup == 1 else 0.012 * speedup
    timed: dict[str, Any] = {
        key: {
            "p50_ms": ms * scale,
            "p50_ms_ci95": [ms * scale * 0.994, ms * scale * 1.009],
            "p95_ms": ms * scale * 1.08,
            "p99_ms": ms * scale * 1.31,
            "speedup": speedup,
            "speedup_ci95": [speedup - spread, speedup + spread],
        }
        for key, scale in scales.items()
    }
    return {**timed, "peak_memory_mb": 62.0 + 40 * ms}


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def _csv(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])

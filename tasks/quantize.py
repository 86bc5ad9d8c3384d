"""Export a trained model to ONNX, check that the graph computes the same, and quantize it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from tasks.core.cli import main
from tasks.core.data import Dataset, Split, open_dataset
from tasks.core.engine import predict as torch_predict
from tasks.core.errors import StageFailed
from tasks.core.export import OPSET, export, take_raw_images, to_bytes
from tasks.core.files import write_json
from tasks.core.models import load_model, mac_count, parameter_count
from tasks.core.params import QuantizeParams
from tasks.core.quantization import node_counts, quantize_int8
from tasks.core.runtime import session
from tasks.core.transforms import pixel_scale

PARITY_BATCHES = (1, 64)
PARITY_TOLERANCE = 1e-3  # of a logit; float32 sums in another order differ by about 1e-5


def quantize(params: QuantizeParams, model: Path, data: Path, scheme: str, out: Path) -> None:
    """Write model.onnx (`image` uint8 [N, H, W, C] -> `logits` float32 [N, K]) and metrics.json.

    Args:
        model: folder of a trained model.
        data: the ingested data set; calibration images come from its training split.
        scheme: "fp32", or "int8" (static, QDQ).

    Raises:
        StageFailed: the graph's logits are not the network's, or nothing was quantized.
    """
    dataset = open_dataset(data)
    network, spec = load_model(model)
    zero, scale = pixel_scale(dataset.channel_mean, dataset.channel_std)
    exported = export(network, spec.image_shape)
    plain = to_bytes(take_raw_images(copy.deepcopy(exported), spec.image_shape, zero, scale))
    difference = _parity(network, plain, dataset)
    content = plain
    if scheme == "int8":
        images_NHWC = _calibration_images(dataset.train, params)
        exported = quantize_int8(exported, images_NHWC, zero, scale, params.calibrator, params.per_channel)
        content = to_bytes(take_raw_images(exported, spec.image_shape, zero, scale))
    counts = node_counts(exported)
    if scheme == "int8" and not counts["nodes_int8"]:
        raise StageFailed(f"{model}: no operator of this network could be quantized to int8")
    (out / "model.onnx").write_bytes(content)
    write_json(
        out / "metrics.json",
        {
            "scheme": scheme,
            "opset": OPSET,
            "parameters": parameter_count(network),
            "macs": mac_count(network, spec.image_shape),
            "size_bytes": len(content),
            "export_max_difference": difference,
            **counts,
        },
    )
    print(f"quantize: {scheme}, {len(content) / 1e3:.0f} kB, {counts['nodes_int8']} int8 nodes")


def _parity(network: torch.nn.Module, plain: bytes, dataset: Dataset) -> float:
    """The largest difference of a logit between torch and ONNX Runtime on validation images."""
    run = session(plain, 1)
    worst = 0.0
    for batch in PARITY_BATCHES:
        images_NHWC = np.ascontiguousarray(dataset.val.images_NHWC[:batch])
        some = Split(images_NHWC, dataset.val.labels_N[:batch])
        wanted = torch_predict(network, some, dataset.channel_mean, dataset.channel_std).numpy()
        got = run.run(None, {"image": images_NHWC})[0]
        worst = max(worst, float(np.abs(wanted - got).max()))
        if worst > PARITY_TOLERANCE or (wanted.argmax(1) != got.argmax(1)).any():
            raise StageFailed(f"the ONNX graph differs from the network by {worst:.2g} at batch {batch}")
    return worst


def _calibration_images(train: Split, params: QuantizeParams) -> np.ndarray:
    """A random part of the training images, in the order of the array."""
    count = min(params.calibration_images, len(train.labels_N))
    rows = np.random.default_rng(params.seed).choice(len(train.labels_N), count, replace=False)
    return np.ascontiguousarray(train.images_NHWC[np.sort(rows)])


if __name__ == "__main__":
    main(quantize)

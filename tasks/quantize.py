"""Export a trained model to ONNX, check that the graph computes the same, and quantize it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tasks.core.cli import main
from tasks.core.data import Dataset, Split, open_dataset
from tasks.core.engine import predict as torch_predict
from tasks.core.errors import StageFailed
from tasks.core.export import OPSET, export
from tasks.core.files import read_json, write_json
from tasks.core.models import load_model, mac_count, parameter_count
from tasks.core.nodes import count_weighted, node_report
from tasks.core.params import QuantizeParams
from tasks.core.runtime import session
from tasks.core.schemes import SCHEMES, Source
from tasks.core.transforms import BatchAugment

PARITY_BATCHES = (1, 64)
PARITY_TOLERANCE = 1e-3  # of a logit; float32 sums in another order differ by about 1e-5
MUCH = 2.0  # points lost on validation images that are worth a word


def quantize(params: QuantizeParams, model: Path, data: Path, policy: Path, scheme: str, out: Path) -> None:
    """Write model.onnx (`image` uint8 [N, H, W, C] -> `logits` float32 [N, K]) and metrics.json.

    Args:
        model: folder of a trained model.
        data: the ingested data set; calibration images come from its training split.
        policy: policy.json of augment, for quantization-aware training.
        scheme: a key of `schemes.SCHEMES`.

    Raises:
        StageFailed: the graph's logits are not the network's, or nothing was quantized.
    """
    dataset = open_dataset(data)
    network, spec = load_model(model)
    graph = export(network, spec.image_shape)
    augment = BatchAugment(read_json(policy), params.qat_augment_strength)
    source = Source(params, dataset, augment, network, graph)
    plain = source.file(graph)
    difference = _parity(network, plain, dataset)
    made = SCHEMES[scheme](source)
    content = source.file(made.graph)
    rows = node_report(graph, content, scheme, made.reasons)
    counts = count_weighted(rows)
    if scheme in ("int8", "int8_mixed", "int8_qat", "int8_dynamic") and not counts["nodes_int8"]:
        raise StageFailed(f"{model}: no operator of this network could be quantized to {scheme}")
    lost = (source.accuracy(plain) - source.accuracy(content)) * 100
    warning = ""
    if lost > MUCH:
        warning = (
            f"{scheme} loses {lost:.1f} points on the validation images; int8_mixed or int8_qat lose less"
        )
        print(f"quantize: {warning}")
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
            "val_lost_points": lost,
            **counts,
            "nodes": rows,
            "warning": warning,
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


if __name__ == "__main__":
    main(quantize)

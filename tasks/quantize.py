"""Quantize the graph of a trained model."""

from __future__ import annotations

from pathlib import Path

from tasks.core.common.files import read_json
from tasks.core.config.cli import main
from tasks.core.config.compression_params import QuantizeParams
from tasks.core.data.dataset import open_dataset
from tasks.core.quantization.deliver import deliver
from tasks.core.quantization.schemes import SCHEMES
from tasks.core.quantization.source import TrainableSource
from tasks.core.runtime.graphs import load_graph


def quantize(params: QuantizeParams, model: Path, data: Path, policy: Path, scheme: str, out: Path) -> None:
    """Write model.onnx and metrics.json, see `deliver`.

    Args:
        model: folder of a trained model, with its graph.
        data: the ingested data set; calibration images come from its training split.
        policy: policy.json of augment, for quantization-aware training.
        scheme: a key of `schemes.SCHEMES`.

    Raises:
        StageFailed: nothing was quantized.
    """
    source = TrainableSource(params, open_dataset(data), load_graph(model), model, read_json(policy))
    network = read_json(model / "metrics.json")
    print(f"quantize: {deliver(source, SCHEMES[scheme](source), scheme, network, out)}")


if __name__ == "__main__":
    main(quantize)

"""Quantize the graph of a trained model, once it has been seen to compute the same."""

from __future__ import annotations

from pathlib import Path

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.common.files import read_json
from tasks.core.config.cli import main
from tasks.core.config.compression_params import QuantizeParams
from tasks.core.data.dataset import open_dataset
from tasks.core.models.saved import load_model
from tasks.core.quantization.deliver import deliver
from tasks.core.quantization.schemes import SCHEMES, Source
from tasks.core.runtime.export import load_graph


def quantize(params: QuantizeParams, model: Path, data: Path, policy: Path, scheme: str, out: Path) -> None:
    """Write model.onnx and metrics.json, see `deliver`.

    Args:
        model: folder of a trained model, with its graph.
        data: the ingested data set; calibration images come from its training split.
        policy: policy.json of augment, for quantization-aware training.
        scheme: a key of `schemes.SCHEMES`.

    Raises:
        StageFailed: the graph's logits are not the network's, or nothing was quantized.
    """
    network, spec = load_model(model)
    source = Source(
        params,
        open_dataset(data, spec.sampling),
        BatchAugment(read_json(policy), params.qat_augment_strength),
        network,
        load_graph(model),
    )
    print(f"quantize: {deliver(source, SCHEMES[scheme](source), scheme, out)}")


if __name__ == "__main__":
    main(quantize)

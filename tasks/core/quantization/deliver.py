"""From a network and a graph that a scheme made of it to a candidate's folder: checked, counted, written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_json
from tasks.core.data.dataset import Split
from tasks.core.evaluation.calibration import temperature
from tasks.core.models.saved import mac_count, parameter_count
from tasks.core.quantization.nodes import count_weighted, node_report
from tasks.core.quantization.schemes import INTEGER_SCHEMES, Made, Source
from tasks.core.runtime.export import OPSET, divide_logits
from tasks.core.runtime.session import session
from tasks.core.training.loop import predict as torch_predict

PARITY_BATCHES = (1, 64)
# Of the largest logit, or of 1 if that is smaller. Float32 sums in another order differ by about 1e-5 of it; in a deep
# network whose batch norms have hardly any variance, and are folded, by about 1e-4.
PARITY_TOLERANCE = 1e-3
MUCH = 2.0  # points lost on validation images that are worth a word


def deliver(source: Source, made: Made, scheme: str, out: Path) -> str:
    """Write model.onnx (`image` uint8 [N, H, W, C] -> `logits` float32 [N, K]) and metrics.json.

    The logits are divided by the temperature that the validation images ask for, within the graph: their softmax is
    how often such a prediction is right.

    Returns:
        What was written, in a line.

    Raises:
        StageFailed: the float graph's logits are not the network's, or nothing was quantized.
    """
    plain = source.file(source.graph)
    logits_NK = source.logits(source.file(made.graph))
    fitted = temperature(logits_NK, source.dataset.val.labels_N)
    content = source.file(divide_logits(made.graph, fitted))
    difference = _parity(source, plain)
    rows = node_report(source.graph, content, scheme, made.reasons)
    counts = count_weighted(rows)
    if scheme in INTEGER_SCHEMES and not counts["nodes_int8"]:
        raise StageFailed(
            f"no operator of this network could be quantized to {scheme}: leave it out of schemes"
        )
    right = float((logits_NK.argmax(1) == source.dataset.val.labels_N).mean())
    lost = (source.accuracy(plain) - right) * 100
    warnings = [made.warning] if made.warning else []
    if lost > MUCH:
        warnings.append(
            f"{scheme} loses {lost:.1f} points on the validation images; int8_mixed or int8_qat lose less"
        )
    warning = "; ".join(warnings)
    (out / "model.onnx").write_bytes(content)
    write_json(
        out / "metrics.json",
        {
            "scheme": scheme,
            "opset": OPSET,
            "parameters": parameter_count(source.network),
            "macs": mac_count(source.network, source.dataset.image_shape),
            "size_bytes": len(content),
            "export_max_difference": difference,
            "val_lost_points": lost,
            "temperature": fitted,
            **counts,
            "nodes": rows,
            "warning": warning,
        },
    )
    return f"{scheme}, {len(content) / 1e3:.0f} kB, {counts['nodes_int8']} int8 nodes{warning and f'; {warning}'}"


def _parity(source: Source, plain: bytes) -> float:
    """The largest difference of a logit between torch and ONNX Runtime on validation images."""
    dataset, run = source.dataset, session(plain, 1)
    worst = 0.0
    for batch in PARITY_BATCHES:
        images_NHWC = np.ascontiguousarray(dataset.val.images_NHWC[:batch])
        some = Split(images_NHWC, dataset.val.labels_N[:batch])
        wanted = torch_predict(source.network, some, dataset.channel_mean, dataset.channel_std).numpy()
        got = run.run(None, {"image": images_NHWC})[0]
        worst = max(worst, float(np.abs(wanted - got).max()))
        tolerance = PARITY_TOLERANCE * max(1.0, float(np.abs(wanted).max()))
        # What ONNX Runtime takes for the class may come second in torch only by a difference that is tolerated.
        chosen_N = np.take_along_axis(wanted, got.argmax(1)[:, None], 1)[:, 0]
        if worst > tolerance or (wanted.max(1) - chosen_N > 2 * tolerance).any():
            raise StageFailed(f"the ONNX graph differs from the network by {worst:.2g} at batch {batch}")
    return worst

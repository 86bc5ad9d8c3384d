"""From the graph that a scheme made to a candidate's folder: calibrated, counted, written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_json
from tasks.core.evaluation.calibration import temperature
from tasks.core.quantization.nodes import count_weighted, node_report
from tasks.core.quantization.schemes import INTEGER_SCHEMES
from tasks.core.quantization.source import Made, Source
from tasks.core.runtime.graphs import OPSET, divide_logits

FIGURES = ("parameters", "macs", "graph_difference")
MUCH = 2.0  # points lost on validation images that are worth a word


def deliver(source: Source, made: Made, scheme: str, network: Mapping[str, Any], out: Path) -> str:
    """Write model.onnx (`image` uint8 [N, H, W, C] -> `logits` float32 [N, K]) and metrics.json.

    The logits are divided by the temperature that the validation images ask for, within the graph: their softmax is
    how often such a prediction is right.

    Args:
        network: `export.figures` of the network that `source` is the graph of.

    Returns:
        What was written, in a line.

    Raises:
        StageFailed: nothing was quantized.
    """
    plain = source.file(source.graph)
    logits_NK = source.logits(source.file(made.graph))
    fitted = temperature(logits_NK, source.dataset.val.labels_N)
    content = source.file(divide_logits(made.graph, fitted))
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
            f"{scheme} loses {lost:.1f} points on the validation examples; int8_mixed or int8_qat lose less"
        )
    warning = "; ".join(warnings)
    (out / "model.onnx").write_bytes(content)
    write_json(
        out / "metrics.json",
        {
            "scheme": scheme,
            "opset": OPSET,
            **{key: network[key] for key in FIGURES},
            "size_bytes": len(content),
            "val_lost_points": lost,
            "temperature": fitted,
            **counts,
            "nodes": rows,
            "warning": warning,
        },
    )
    return f"{scheme}, {len(content) / 1e3:.0f} kB, {counts['nodes_int8']} int8 nodes{warning and f'; {warning}'}"

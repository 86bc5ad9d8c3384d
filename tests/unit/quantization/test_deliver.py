"""What is written of a candidate."""

import dataclasses
from pathlib import Path

import pytest

from tasks.core.common.files import read_json
from tasks.core.evaluation.calibration import temperature
from tasks.core.quantization.deliver import deliver
from tasks.core.quantization.schemes import SCHEMES
from tasks.core.quantization.source import TrainableSource
from tasks.core.runtime.graphs import divide_logits
from tasks.core.runtime.session import predict, session
from tests.networks import source_of

pytestmark = pytest.mark.slow  # graphs are exported

FIGURES = {"parameters": 5, "macs": 7, "graph_difference": 1e-6}


@pytest.fixture(scope="module")
def large() -> TrainableSource:
    """With logits that are too large."""
    source = source_of("resnet_small")
    return dataclasses.replace(source, graph=divide_logits(source.graph, 1 / 30))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_probabilities_are_calibrated_within_the_graph_when_logits_were_too_large(
    scheme: str, large: TrainableSource, tmp_path: Path
) -> None:
    made = SCHEMES[scheme](large)
    deliver(large, made, scheme, FIGURES, tmp_path)
    images_NHWC, labels_N = large.dataset.val.raw_N, large.dataset.val.labels_N
    plain_NK = predict(session(large.file(made.graph), 1), images_NHWC)
    logits_NK = predict(session(tmp_path / "model.onnx", 1), images_NHWC)
    written = read_json(tmp_path / "metrics.json")
    assert logits_NK * written["temperature"] == pytest.approx(plain_NK, rel=1e-3, abs=1e-2)
    assert temperature(logits_NK, labels_N) == pytest.approx(1.0, rel=0.05)
    assert FIGURES.items() <= written.items()
    assert written["size_bytes"] == (tmp_path / "model.onnx").stat().st_size

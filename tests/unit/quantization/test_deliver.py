"""A graph is held against the network that it was made of before it is written."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import read_json
from tasks.core.evaluation.calibration import temperature
from tasks.core.quantization.deliver import deliver
from tasks.core.quantization.schemes import SCHEMES, Made, Source
from tasks.core.runtime.export import export
from tasks.core.runtime.session import predict, session
from tests.networks import SHAPE, source_of

pytestmark = pytest.mark.slow  # graphs are exported


@pytest.fixture(scope="module")
def source() -> Source:
    return source_of("resnet_small")


def scaled(source: Source, factor: float, graph_factor: float) -> Source:
    """With logits so many times as large, in the network and in its graph."""
    networks = []
    for times in (factor, graph_factor):
        network = copy.deepcopy(source.network)
        with torch.no_grad():
            network.head.weight.mul_(times)  # type: ignore[operator, union-attr]
            network.head.bias.mul_(times)  # type: ignore[operator, union-attr]
        networks.append(network)
    return dataclasses.replace(source, network=networks[0], graph=export(networks[1], SHAPE))


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_graph_is_written_when_it_differs_by_rounding_whatever_the_size_of_the_logits(
    factor: float, source: Source, tmp_path: Path
) -> None:
    large = scaled(source, factor, factor)
    deliver(large, Made(large.graph), "fp32", tmp_path)
    assert (tmp_path / "model.onnx").exists()
    difference = read_json(tmp_path / "metrics.json")["export_max_difference"]
    assert difference < 1e-3 * factor
    assert difference > 1e-3 or factor == 1, "more than what small logits may differ by"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_probabilities_are_calibrated_within_the_graph_when_logits_were_too_large(
    scheme: str, source: Source, tmp_path: Path
) -> None:
    large = scaled(source, 30.0, 30.0)
    made = SCHEMES[scheme](large)
    deliver(large, made, scheme, tmp_path)
    images_NHWC, labels_N = large.dataset.val.images_NHWC, large.dataset.val.labels_N
    plain_NK = predict(session(large.file(made.graph), 1), images_NHWC)
    logits_NK = predict(session(tmp_path / "model.onnx", 1), images_NHWC)
    divisor = read_json(tmp_path / "metrics.json")["temperature"]
    assert logits_NK * divisor == pytest.approx(plain_NK, rel=1e-3, abs=1e-2)
    assert temperature(logits_NK, labels_N) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("wrong", [1.01, 0.9])
def test_graph_is_refused_in_one_line_when_it_is_of_another_network(
    wrong: float, source: Source, tmp_path: Path
) -> None:
    other = scaled(source, 10.0, 10.0 * wrong)
    with pytest.raises(StageFailed, match=r"^the ONNX graph differs from the network by \S+ at batch 1$"):
        deliver(other, Made(other.graph), "fp32", tmp_path)
    assert not any(tmp_path.iterdir())

"""Export, quantization and the harness around ONNX Runtime."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.data.dataset import Dataset, Split
from tasks.core.data.inputs import ImageInput
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.pruning.cutting import Pruner
from tasks.core.runtime.export import export, figures, refill
from tasks.core.runtime.graphs import take_raw, to_bytes
from tasks.core.runtime.latency import latencies
from tasks.core.runtime.session import fingerprint, peak_memory_mb, predict, session
from tasks.core.runtime.weights import sparsity
from tests.networks import ARCHITECTURES

pytestmark = pytest.mark.slow  # graphs are exported

SHAPE = (28, 28, 1)
GIVEN = ImageInput(SHAPE, [0.3], [0.35])


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def network(arch: str = "resnet_small", width: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(Spec(arch, width, 0.0, SHAPE, 4))
    with torch.no_grad():  # batch norm's statistics of an untrained network say nothing
        for _ in range(3):
            model.train()(GIVEN.tensor(torch.tensor(images(64))))
    return model.eval()


@cache  # an export takes seconds, and nothing here changes one
def dense_graph(arch: str = "resnet_small") -> onnx.ModelProto:
    return export(network(arch), GIVEN)


def raw(model: onnx.ModelProto) -> bytes:
    return to_bytes(take_raw(model, GIVEN))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    path.write_bytes(raw(dense_graph()))
    return path


@pytest.fixture(scope="module")
def wider(exported: Path) -> Path:
    path = exported.with_name("wider.onnx")
    path.write_bytes(raw(export(network(width=32), GIVEN)))
    return path


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "convnext_tiny"])
def test_export_computes_what_torch_does_when_given_raw_images(arch: str, tmp_path: Path) -> None:
    model, path = network(arch), tmp_path / "model.onnx"
    path.write_bytes(raw(dense_graph(arch)))
    for batch in (1, 7):
        x_NHWC = images(batch)
        with torch.inference_mode():
            wanted = model(GIVEN.tensor(torch.tensor(x_NHWC))).numpy()
        assert predict(session(path, 1), x_NHWC) == pytest.approx(wanted, abs=1e-3)


def test_export_is_equal_bytes_and_names_no_path_when_done_twice(exported: Path) -> None:
    content = exported.read_bytes()
    assert content == raw(export(network(), GIVEN))
    assert b"site-packages" not in content
    assert b".py" not in content


def test_export_takes_uint8_and_gives_logits_when_its_interface_is_read(exported: Path) -> None:
    run = session(exported, 1)
    (given,), (gives,) = run.get_inputs(), run.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("image", "tensor(uint8)", list(SHAPE))
    assert (gives.name, gives.type, gives.shape[1:]) == ("logits", "tensor(float)", [4])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_export_has_one_operator_for_a_mean_and_no_batch_norm_when_read(arch: str) -> None:
    operators = {node.op_type for node in dense_graph(arch).graph.node}
    assert "GlobalAveragePool" in operators
    assert not operators & {"ReduceMean", "Reshape", "Gather", "BatchNormalization"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_refilled_graph_is_the_exported_one_when_the_network_is_pruned(arch: str) -> None:
    pruned, graph = network(arch), dense_graph(arch)
    Pruner(pruned, GIVEN, 0.5, "l2", "uniform", 1, 8).step()
    before = graph.SerializeToString(deterministic=True)
    assert raw(refill(graph, pruned)) == raw(export(pruned, GIVEN))
    assert graph.SerializeToString(deterministic=True) == before


def scaled(factor: float) -> torch.nn.Module:
    """With logits so many times as large."""
    model = network()
    with torch.no_grad():
        for parameter in model.get_submodule("head").parameters():
            parameter.mul_(factor)
    return model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    some = Split(images(70), np.zeros(70, np.int64))
    return Dataset(list("abcd"), GIVEN, "digest", some, some, some)


@pytest.mark.parametrize("factor", [1.0, 1e6])
def test_graph_is_accepted_when_it_differs_by_rounding_whatever_the_size_of_the_logits(
    factor: float, dataset: Dataset
) -> None:
    model = scaled(factor)
    found = figures(model, refill(dense_graph(), model), dataset)
    assert found["graph_difference"] < 1e-3 * factor
    assert found["graph_difference"] > 1e-3 or factor == 1, "more than what small logits may differ by"
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["macs"] > 1e6


@pytest.mark.parametrize("wrong", [1.01, 0.9])
def test_graph_is_refused_in_one_line_when_it_is_of_another_network(wrong: float, dataset: Dataset) -> None:
    graph = refill(dense_graph(), scaled(10 * wrong))
    with pytest.raises(StageFailed, match=r"^the ONNX graph differs from the network by \S+ at batch 1$"):
        figures(scaled(10), graph, dataset)


class Stepped(torch.nn.Module):
    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return x_NCHW if x_NCHW.sum() > 0 else -x_NCHW


class Complex(torch.nn.Module):
    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x_NCHW).real


@pytest.mark.parametrize("model", [Stepped(), Complex()])
def test_export_is_refused_in_one_line_when_the_network_has_no_graph(model: torch.nn.Module) -> None:
    with pytest.raises(StageFailed, match=f"{type(model).__name__}: cannot be") as refused:
        export(model, GIVEN)
    assert "\n" not in str(refused.value)


def test_latencies_are_ordered_when_models_are_measured(exported: Path, wider: Path) -> None:
    timed = latencies({"a": exported, "b": wider}, images(8), 4, 1, 30, "a")
    for latency in timed.values():
        low, high = latency.p50_ms_ci95
        assert 0 < low <= latency.p50_ms <= high <= latency.p99_ms
        assert latency.p50_ms <= latency.p95_ms <= latency.p99_ms
        assert latency.speedup_ci95[0] <= latency.speedup <= latency.speedup_ci95[1]
    assert (timed["a"].speedup, timed["a"].speedup_ci95) == (1.0, (1.0, 1.0))


def test_latency_is_longer_when_the_batch_is(exported: Path) -> None:
    one, many = (latencies({"m": exported}, images(64), batch, 1, 20, "m")["m"].p50_ms for batch in (1, 64))
    assert many > 5 * one


def graph_of(weights: NDArray[np.generic], zero_point: NDArray[np.int8] | None = None) -> bytes:
    """One Gemm of `weights`; with `zero_point` they are int8, one scale an output."""
    initializers = [
        onnx.numpy_helper.from_array(weights, "w"),
        onnx.numpy_helper.from_array(np.zeros(3, np.float32), "b"),
    ]
    nodes = [onnx.helper.make_node("Gemm", ["x", "w" if zero_point is None else "w_float", "b"], ["y"])]
    if zero_point is not None:
        scale = np.ones(len(zero_point), np.float32)
        initializers += [
            onnx.numpy_helper.from_array(scale, "s"),
            onnx.numpy_helper.from_array(zero_point, "z"),
        ]
        nodes.insert(0, onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["w_float"], axis=1))
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size])
        for name, size in zip("xy", weights.shape, strict=True)
    ]
    graph = onnx.helper.make_graph(nodes, "linear", tensors[:1], tensors[1:], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_sparsity_counts_zero_weights_and_no_biases_when_they_are_floats() -> None:
    assert sparsity(graph_of(np.array([[0, 1, 2], [3, 0, 0]], np.float32))) == 0.5
    assert sparsity(graph_of(np.ones((2, 3), np.float32))) == 0.0


def test_sparsity_counts_zero_points_when_weights_are_int8() -> None:
    weights = np.array([[0, 5, 2], [0, 0, 2]], np.int8)
    assert sparsity(graph_of(weights, np.zeros(3, np.int8))) == 0.5
    assert sparsity(graph_of(weights, np.array([0, 5, 2], np.int8))) == pytest.approx(5 / 6)


def test_sparsity_is_zero_when_there_are_no_weights() -> None:
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])] for name in "xy"]
    assert (
        sparsity(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends)).SerializeToString()) == 0.0
    )


def test_peak_memory_is_that_of_a_process_of_its_own_when_measured(exported: Path) -> None:
    assert 20 < peak_memory_mb(exported, 8) < 300


def test_fingerprint_names_the_processor_when_asked() -> None:
    machine = fingerprint()
    assert machine["cpu_model"]
    assert machine["threads"] >= 1


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_session_is_refused_in_one_line_when_the_file_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.onnx: not a model") as refused:
        session(path, 1)
    assert "\n" not in str(refused.value)


def test_session_is_refused_in_one_line_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        session(tmp_path / "model.onnx", 1)

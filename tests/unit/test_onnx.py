"""Export, quantization and the harness around ONNX Runtime."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tasks.core.errors import BadInput
from tasks.core.export import export, take_raw_images, to_bytes
from tasks.core.models import ARCHITECTURES, Spec, build
from tasks.core.quantization import WEIGHTED, node_counts, quantize_int8
from tasks.core.runtime import fingerprint, peak_memory_mb, predict, session
from tasks.core.timing import latencies
from tasks.core.transforms import normalize, pixel_scale
from tasks.core.weights import packed_size, sparsity
from tests.builders import rows_model

SHAPE, MEAN, STD = (28, 28, 1), [0.3], [0.35]
SCALE = pixel_scale(MEAN, STD)


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def network(arch: str = "resnet_small") -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(Spec(arch, 16, 0.0, SHAPE, 4))
    with torch.no_grad():  # batch norm's statistics of an untrained network say nothing
        for _ in range(3):
            model.train()(normalize(torch.tensor(images(64)), MEAN, STD))
    return model.eval()


def raw(model: onnx.ModelProto) -> bytes:
    return to_bytes(take_raw_images(model, SHAPE, *SCALE))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    path.write_bytes(raw(export(network(), SHAPE)))
    return path


@pytest.fixture(scope="module")
def quantized(exported: Path) -> Path:
    path = exported.with_name("int8.onnx")
    path.write_bytes(raw(quantize_int8(export(network(), SHAPE), images(64), *SCALE, "minmax", True)))
    return path


SLOW = [pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHITECTURES if arch != "resnet_small"]


@pytest.mark.parametrize("arch", ["resnet_small", *SLOW])
def test_export_computes_what_torch_does_when_given_raw_images(arch: str, tmp_path: Path) -> None:
    model, path = network(arch), tmp_path / "model.onnx"
    path.write_bytes(raw(export(model, SHAPE)))
    for batch in (1, 7):
        x_NHWC = images(batch)
        with torch.inference_mode():
            wanted = model(normalize(torch.tensor(x_NHWC), MEAN, STD)).numpy()
        assert predict(session(path, 1), x_NHWC) == pytest.approx(wanted, abs=1e-3)


def test_export_is_equal_bytes_and_names_no_path_when_done_twice(exported: Path) -> None:
    content = exported.read_bytes()
    assert content == raw(export(network(), SHAPE))
    assert b"site-packages" not in content
    assert b".py" not in content


def test_export_takes_uint8_and_gives_logits_when_its_interface_is_read(exported: Path) -> None:
    run = session(exported, 1)
    (given,), (gives,) = run.get_inputs(), run.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("image", "tensor(uint8)", list(SHAPE))
    assert (gives.name, gives.type, gives.shape[1:]) == ("logits", "tensor(float)", [4])


def test_quantized_model_agrees_with_the_float_one_when_calibrated(exported: Path, quantized: Path) -> None:
    wanted, got = (predict(session(path, 1), images(200)) for path in (exported, quantized))
    error = np.abs(wanted - got).mean() / np.abs(wanted).mean()
    assert error < 0.1
    assert quantized.stat().st_size < 0.6 * exported.stat().st_size


def test_node_counts_finds_all_but_the_last_layer_when_quantized(exported: Path, quantized: Path) -> None:
    float_model, int8_model = onnx.load(exported), onnx.load(quantized)
    weighted = sum(node.op_type in WEIGHTED for node in float_model.graph.node)
    assert node_counts(float_model) == {"nodes_int8": 0, "nodes_fp32": weighted}
    assert node_counts(int8_model) == {"nodes_int8": weighted - 1, "nodes_fp32": 1}


def test_quantized_model_takes_the_image_as_it_is_when_its_first_nodes_are_read(quantized: Path) -> None:
    nodes = onnx.load(quantized).graph.node
    first = next(node for node in nodes if "image" in node.input)
    readers = [node.op_type for node in nodes if first.output[0] in node.input]
    assert (first.op_type, readers) == ("Transpose", ["DequantizeLinear"])


def test_quantized_weights_have_seven_bits_when_read_back(quantized: Path) -> None:
    arrays = [onnx.numpy_helper.to_array(i) for i in onnx.load(quantized).graph.initializer]
    weights = [array for array in arrays if array.dtype == np.int8 and array.ndim > 1]
    assert weights
    assert max(np.abs(array.astype(int)).max() for array in weights) <= 64


def test_latencies_are_ordered_when_models_are_measured(exported: Path, quantized: Path) -> None:
    timed = latencies({"a": exported, "b": quantized}, images(8), 4, 1, 30, "a")
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
    assert sparsity(rows_model()) == 0.0


@pytest.mark.slow
def test_sparsity_and_packed_size_tell_when_a_network_has_zeros() -> None:
    model = network()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight *= torch.rand(module.weight.shape) < 0.4
    plain, sparse = export(network(), SHAPE), export(model, SHAPE)
    for make in (raw, lambda m: raw(quantize_int8(m, images(64), *SCALE, "minmax", True))):
        dense, zeros = make(copy.deepcopy(plain)), make(copy.deepcopy(sparse))
        assert sparsity(dense) < 0.1
        assert 0.58 < sparsity(zeros) < 0.75
        assert packed_size(zeros) < 0.75 * packed_size(dense)
        assert len(zeros) == pytest.approx(len(dense), rel=0.02)


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

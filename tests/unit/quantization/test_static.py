"""The schemes, the ranges that they start from, training of int8 graphs, and which nodes are int8."""

import copy
import dataclasses
import re

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from tasks.core.common.errors import StageFailed
from tasks.core.data.dataset import Split
from tasks.core.quantization.nodes import count_weighted, node_report
from tasks.core.quantization.qat import IntegerGraph, trained
from tasks.core.quantization.schemes import SCHEMES
from tasks.core.quantization.source import Made, TrainableSource
from tasks.core.quantization.static import (
    Calibrated,
    calibrate,
    classifier,
    depthwise,
    layer_losses,
    quantize_static,
)
from tasks.core.runtime.export import refill
from tasks.core.runtime.graphs import network_input
from tasks.core.runtime.session import predict, session
from tasks.core.runtime.weights import WEIGHTED, packed_size, sparsity
from tests.networks import kernels, network_of, source_of

pytestmark = pytest.mark.slow  # graphs are exported

STATIC = ["int8", "int8_mixed", "int8_qat"]


def variant(source: TrainableSource, **changed: object) -> TrainableSource:
    """`source` with other params."""
    return dataclasses.replace(source, params=source.params.model_copy(update=changed))


@pytest.fixture(scope="module")
def source() -> TrainableSource:
    return source_of("resnet_small")


@pytest.fixture(scope="module")
def made(source: TrainableSource) -> dict[str, Made]:
    return {name: scheme(source) for name, scheme in SCHEMES.items()}


def logits(source: TrainableSource, made: Made) -> NDArray[np.float32]:
    return predict(session(source.file(made.graph), 1), source.dataset.val.raw_N)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_agrees_with_the_float_graph_when_its_file_is_run(
    scheme: str, source: TrainableSource, made: dict[str, Made]
) -> None:
    wanted, got = logits(source, made["fp32"]), logits(source, made[scheme])
    assert (wanted.argmax(1) == got.argmax(1)).mean() > 0.98


def test_files_shrink_by_what_the_scheme_promises_when_measured(
    source: TrainableSource, made: dict[str, Made]
) -> None:
    sizes = {name: len(source.file(result.graph)) for name, result in made.items()}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    for scheme in ("int8", "int8_dynamic", "int8_weights"):
        assert sizes[scheme] < 0.45 * sizes["fp32"]


@pytest.mark.parametrize("scheme", STATIC)
def test_static_schemes_take_the_image_as_it_is_when_their_first_nodes_are_read(
    scheme: str, source: TrainableSource, made: dict[str, Made]
) -> None:
    nodes = onnx.load_from_string(source.file(made[scheme].graph)).graph.node
    held = {"image"}  # tensors that hold its pixels, whatever their order
    moving = [node for node in nodes if node.op_type in ("Reshape", "Split", "Concat", "Transpose")]
    for node in moving:
        held |= set(node.output) if node.input[0] in held else set()
    readers = {node.op_type for node in nodes if node not in moving and set(node.input) & held}
    assert readers == {"DequantizeLinear"}


@pytest.mark.parametrize(("bits", "greatest"), [(7, 64), (8, 127)])
def test_weights_use_their_bits_and_no_more_when_read_back(
    bits: int, greatest: int, source: TrainableSource
) -> None:
    calibrated = dataclasses.replace(source.calibrated, weight_bits=bits)
    arrays = [numpy_helper.to_array(i) for i in quantize_static(calibrated).graph.initializer]
    weights = [array for array in arrays if array.dtype == np.int8 and array.ndim > 1]
    assert weights
    assert max(np.abs(array.astype(int)).max() for array in weights) == greatest


def test_node_report_finds_all_but_the_classifier_in_int8_when_static(
    source: TrainableSource, made: dict[str, Made]
) -> None:
    content = source.file(made["int8"].graph)
    rows = node_report(source.graph, content, "int8", made["int8"].reasons)
    weighted = [row for row in rows if row["op"] in WEIGHTED]
    assert [row["name"] for row in weighted if row["precision"] == "fp32"] == [classifier(source.graph)]
    assert "logits" in weighted[-1]["reason"]
    assert count_weighted(rows) == {"nodes_int8": len(weighted) - 1, "nodes_fp32": 1}


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "int8_weights"])
def test_node_report_says_that_nothing_is_int8_when_the_scheme_computes_in_floats(
    scheme: str, source: TrainableSource, made: dict[str, Made]
) -> None:
    rows = node_report(source.graph, source.file(made[scheme].graph), scheme, {})
    assert {row["precision"] for row in rows} == {"fp32"}
    assert {row["reason"] for row in rows} == {f"{scheme} computes in floating point"}


@pytest.mark.parametrize("scheme", ["fp16", "int8_weights"])
def test_stored_weights_cost_no_time_when_onnx_runtime_has_loaded_them(
    scheme: str, source: TrainableSource, made: dict[str, Made]
) -> None:
    assert kernels(source.file(made[scheme].graph)) == kernels(source.file(made["fp32"].graph))


@pytest.mark.parametrize("scheme", STATIC)
def test_weights_of_the_classifier_are_stored_in_int8_when_it_computes_in_floats(
    scheme: str, source: TrainableSource, made: dict[str, Made]
) -> None:
    tensors = made[scheme].graph.graph.initializer
    floats = [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT]
    matrices = [tensor.name for tensor in floats if len(tensor.dims) > 1 and min(tensor.dims) > 1]
    assert not matrices


def test_dynamic_scheme_computes_in_integers_when_run(source: TrainableSource, made: dict[str, Made]) -> None:
    rows = node_report(source.graph, source.file(made["int8_dynamic"].graph), "int8_dynamic", {})
    assert count_weighted(rows)["nodes_int8"] >= 9


def test_layer_losses_are_ranked_and_find_the_broken_layer_when_one_has_an_outlier(
    source: TrainableSource,
) -> None:
    network = copy.deepcopy(network_of("resnet_small"))
    weight = network.get_submodule("blocks.1.conv1").weight
    with torch.no_grad():
        weight[:, 0, 0, 0] += 60 * weight.abs().max()  # one weight a filter takes the whole range
    broken = calibrate(refill(source.graph, network), source.x_N, source.dataset.input,
                       method="minmax", weight_bits=7, per_channel=True)  # fmt: skip
    losses = layer_losses(broken, source.x_N)
    assert list(losses.values()) == sorted(losses.values(), reverse=True)
    assert next(iter(losses)) == weight_reader(broken, "blocks.1.conv1.weight")


def weight_reader(calibrated: Calibrated, weight: str) -> str:
    return next(node.name for node in calibrated.model.graph.node if weight in node.input)


def test_mixed_scheme_keeps_costly_layers_float_when_accuracy_asks_for_it(source: TrainableSource) -> None:
    lenient = SCHEMES["int8_mixed"](variant(source, mixed_loss_points=100))
    assert set(lenient.reasons) == {classifier(source.graph)}
    strict = SCHEMES["int8_mixed"](variant(source, mixed_loss_points=-100))  # nothing is good enough
    assert set(strict.reasons) == {n.name for n in source.graph.graph.node if n.op_type in WEIGHTED}


def test_integer_graph_computes_what_onnx_runtime_does_when_untrained(source: TrainableSource) -> None:
    kept = [classifier(source.graph)]
    network = IntegerGraph(source.calibrated, kept)
    x_NCHW = network_input(source.dataset.val.x_N, source.dataset.input)
    with torch.inference_mode():
        got = network(torch.tensor(x_NCHW)).numpy()
    wanted = logits(source, Made(quantize_static(source.calibrated, kept)))
    plain = logits(source, Made(source.graph))
    assert np.abs(got - wanted).mean() < 0.3 * np.abs(plain - wanted).mean()
    assert (got.argmax(1) == wanted.argmax(1)).all()


def test_learned_scale_stays_near_the_calibrated_one_when_a_step_was_too_long(
    source: TrainableSource,
) -> None:
    network = IntegerGraph(source.calibrated, [classifier(source.graph)])
    calibrated = {name: scale.item() for name, scale in network.scales.items()}
    with torch.no_grad():
        for scale in network.scales.values():
            scale.fill_(-1)
    network(torch.tensor(network_input(source.dataset.val.x_N[:2], source.dataset.input)))
    learned = {name: scale.item() for name, scale in network.scales.items()}
    assert learned == pytest.approx({name: value / 2 for name, value in calibrated.items()})


def test_int8_graph_has_the_accuracy_of_the_trained_network_when_written_back(
    source: TrainableSource,
) -> None:
    kept = [classifier(source.graph)]
    network = IntegerGraph(source.calibrated, kept)
    with torch.no_grad():
        for weight in network.weights.values():
            weight.mul_(1 + 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        for scale in network.scales.values():
            scale.mul_(1.1)
    x_NCHW = network_input(source.dataset.val.x_N, source.dataset.input)
    with torch.inference_mode():
        wanted = network(torch.tensor(x_NCHW)).numpy()
    model = trained(network, source.calibrated, kept)
    got = logits(source, Made(model))
    assert (got.argmax(1) == wanted.argmax(1)).mean() > 0.99
    assert np.abs(got - wanted).mean() < 0.05 * np.abs(wanted).mean()


@pytest.mark.parametrize("scheme", sorted({*SCHEMES} - {"int8_qat"}))
def test_sparsity_and_packed_size_tell_when_a_network_has_zeros(
    scheme: str, source: TrainableSource, made: dict[str, Made]
) -> None:
    network = copy.deepcopy(network_of("resnet_small"))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                draws = torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(0))
                module.weight *= draws < 0.4
    zeroed = dataclasses.replace(source, graph=refill(source.graph, network))
    dense, sparse = source.file(made[scheme].graph), zeroed.file(SCHEMES[scheme](zeroed).graph)
    assert sparsity(dense) < 0.1
    assert 0.58 < sparsity(sparse) < 0.75
    assert packed_size(sparse) < 0.75 * packed_size(dense)
    assert len(sparse) == pytest.approx(len(dense), rel=0.02)


def test_training_the_int8_graph_recovers_the_logits_when_weights_were_spoiled(
    source: TrainableSource,
) -> None:
    spoiled = copy.deepcopy(source.graph)
    for initializer in spoiled.graph.initializer:
        if initializer.name.endswith("conv1.weight"):
            values = numpy_helper.to_array(initializer)
            noise = np.random.default_rng(0).standard_normal(values.shape) * values.std() * 1.5
            initializer.CopyFrom(
                numpy_helper.from_array((values + noise).astype(np.float32), initializer.name)
            )
    worse = dataclasses.replace(variant(source, qat_epochs=3, qat_batch_size=64), graph=spoiled)
    wanted = logits(source, Made(source.graph))
    before, after = (
        np.abs(logits(source, SCHEMES[scheme](worse)) - wanted).mean() for scheme in ("int8", "int8_qat")
    )
    assert after < 0.5 * before


def test_the_untrained_int8_graph_is_kept_when_training_made_it_worse(source: TrainableSource) -> None:
    made = SCHEMES["int8_qat"](variant(source, qat_lr=0.5))
    assert re.match(r"training in int8 led from \d+\.\d\d% to .*lower quantize\.qat_lr", made.warning)
    untrained = Made.in_int8(quantize_static(source.calibrated, made.reasons), made.reasons)
    assert (logits(source, made) == logits(source, untrained)).all()


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "efficientnet_b0"])
def test_depthwise_nets_keep_their_accuracy_when_quantized(arch: str) -> None:
    source = source_of(arch)
    assert depthwise(source.graph)
    wanted = source.accuracy(source.file(source.graph))
    made = SCHEMES["int8_mixed"](source)
    assert set(depthwise(source.graph)) < set(made.reasons)
    assert source.accuracy(source.file(made.graph)) > wanted - 0.02


def test_calibration_images_are_of_every_class_when_one_is_rare(source: TrainableSource) -> None:
    labels_N = np.array([0] * 990 + [1] * 10)
    images_NHWC = np.broadcast_to(labels_N.astype(np.uint8)[:, None, None, None], (1000, 2, 2, 1))
    dataset = dataclasses.replace(source.dataset, train=Split(images_NHWC, labels_N))
    chosen = dataclasses.replace(source, dataset=dataset).x_N
    assert len(chosen) == 64
    assert (chosen[:, 0, 0, 0] == 1).sum() == 10


def test_calibration_is_refused_in_one_line_when_a_weight_is_not_finite(source: TrainableSource) -> None:
    network = copy.deepcopy(network_of("resnet_small"))
    with torch.no_grad():
        network.get_submodule("blocks.0.conv1").weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(StageFailed, match="not finite") as refused:
        calibrate(refill(source.graph, network), source.x_N, source.dataset.input,
                  method="minmax", weight_bits=7, per_channel=True)  # fmt: skip
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_calibrators_differ_and_all_serve_when_quantized(method: str, source: TrainableSource) -> None:
    chosen = variant(source, calibrator=method)
    made = SCHEMES["int8"](chosen)
    assert chosen.accuracy(chosen.file(made.graph)) > chosen.accuracy(chosen.file(chosen.graph)) - 0.02


def test_fp16_is_refused_in_one_line_when_a_weight_is_beyond_its_range(source: TrainableSource) -> None:
    network = copy.deepcopy(network_of("resnet_small"))
    with torch.no_grad():
        network.get_submodule("head").weight[0, 0] = 1e6
    broken = dataclasses.replace(source, graph=refill(source.graph, network))
    with pytest.raises(StageFailed, match=r"head\.weight is beyond the range of float16"):
        SCHEMES["fp16"](broken)

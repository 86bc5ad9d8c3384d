"""The comparison with peers: what stands before their graphs, and which of them counts as the best."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from compression import REPEATS, against, normalized, passed, rival, table
from contenders import OnnxModel, cut_front, paste_front
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.core.common.errors import BadInput
from tasks.core.data.inputs import ImageInput
from tasks.core.runtime.graphs import INPUT, take_raw
from tests.builders import rows_model

SHAPE, ZERO, SCALE = (4, 4, 1), 100, 0.05
GIVEN = ImageInput(SHAPE, [ZERO / 255], [1 / (255 * SCALE)])
WEIGHTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def graph(quantize_to: float | None = None) -> onnx.ModelProto:
    """From x_NCHW to logits, one layer; its input on a signed grid with steps of `quantize_to` where given."""
    nodes, x, constants = [], INPUT, {"weights": WEIGHTS, "flat": np.array([-1, 16])}
    if quantize_to is not None:
        constants |= {"step": np.array(quantize_to, np.float32), "zero": np.array(0, np.int8)}
        nodes = [
            helper.make_node("QuantizeLinear", [INPUT, "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["rounded"]),
        ]
        x = "rounded"
    nodes += [
        helper.make_node("Reshape", [x, "flat"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def logits(model: onnx.ModelProto, folder: Path) -> NDArray[np.float32]:
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx").predict(images(5))


def row(accuracy: float, speedup: float) -> dict[str, float]:
    return {"accuracy": accuracy, "speedup_b1": speedup}


def test_front_is_what_it_was_when_cut_off_and_pasted_again(tmp_path: Path) -> None:
    model = take_raw(graph(), GIVEN)
    wanted = logits(model, tmp_path)
    front = cut_front(model)
    assert [i.name for i in model.graph.input] == [INPUT]
    assert {node.op_type for node in model.graph.node} == {"Reshape", "MatMul"}
    assert front.zero_and_scale() == pytest.approx((ZERO, SCALE))
    paste_front(model, front)
    assert logits(model, tmp_path) == pytest.approx(wanted)


def test_images_are_what_the_front_makes_of_them_when_normalized(tmp_path: Path) -> None:
    model = take_raw(graph(), GIVEN)
    wanted = logits(model, tmp_path)
    x_NCHW = normalized(images(5), cut_front(model))
    assert x_NCHW.reshape(5, 16) @ WEIGHTS == pytest.approx(wanted, abs=1e-4)


def test_front_leaves_a_peers_own_grid_alone_when_pasted(tmp_path: Path) -> None:
    step = 0.5
    front = cut_front(take_raw(graph(), GIVEN))
    model = graph(quantize_to=step)
    paste_front(model, front)
    x_N = (images(5).reshape(5, 16).astype(np.float32) - ZERO) * np.float32(SCALE)
    assert logits(model, tmp_path) == pytest.approx(np.rint(x_N / step) * step @ WEIGHTS, abs=1e-3)


def test_front_is_refused_when_the_model_has_no_float_input() -> None:
    with pytest.raises(BadInput, match=f"no tensor {INPUT}"):
        cut_front(onnx.load_from_string(rows_model()))


def test_int8_share_counts_what_runs_in_integers_when_one_of_two_layers_does(tmp_path: Path) -> None:
    model = graph(quantize_to=0.5)
    scale, zero = np.array(0.02, np.float32), np.array(0, np.int8)
    weights = np.clip(np.rint(WEIGHTS / 0.02), -127, 127).astype(np.int8)
    for name, array in {
        "w8": weights,
        "w_scale": scale,
        "w_zero": zero,
        "more": np.eye(3, dtype=np.float32),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    first = model.graph.node.pop()
    first.input[1], first.output[0] = "w", "hidden"
    model.graph.node.extend(
        [
            helper.make_node("DequantizeLinear", ["w8", "w_scale", "w_zero"], ["w"]),
            first,
            helper.make_node("MatMul", ["hidden", "more"], ["logits"]),
        ]
    )
    onnx.save(model, tmp_path / "model.onnx")
    assert OnnxModel(tmp_path / "model.onnx").int8_share() == (1, 2)


def test_rival_is_our_fastest_when_it_must_be_as_accurate_as_the_peer() -> None:
    rows = {
        "dense-fp32": row(0.91, 1.0),
        "prune-0.4-int8": row(0.90, 2.0),
        "press-1": row(0.89, 3.0),
        "ort-static": row(0.90, 4.0),
        "nncf-ort": row(0.92, 5.0),
    }
    assert rival(rows, 1, "ort-static") == "prune-0.4-int8"
    assert rival(rows, 1, "nncf-ort") is None


def test_against_compares_within_rounds_when_the_machine_slows_down() -> None:
    slowdown_R1 = np.array([[1.0], [4.0], [2.0]])
    seconds = {"press-1": slowdown_R1 * np.ones((1, 5)), "nncf-ort": slowdown_R1 * np.full((1, 5), 1.5)}
    duel = against(seconds, "press-1", "nncf-ort")
    assert duel == {"peer": "nncf-ort", "ours": "press-1", "times_faster": 1.5, "ci95": (1.5, 1.5)}
    assert against(seconds, None, "nncf-ort")["times_faster"] == 0


@pytest.mark.parametrize(("times", "enough"), [((1.5, 1.6), True), ((1.5, 1.49), False), ((), False)])
def test_passed_asks_for_every_batch_when_there_are_peers(times: tuple[float, ...], enough: bool) -> None:
    assert passed({f"b{i}": {"times_faster": t} for i, t in enumerate(times)}) is enough


def test_table_says_why_when_a_peer_gave_no_model() -> None:
    measured = {
        "accuracy": 0.9,
        "drop_points": 0.25,
        "drop_points_ci95": (0.1, 0.4),
        "size_bytes": 12_000,
        "nodes_int8": 3,
        "nodes_weighted": 4,
        **{f"speedup_b{batch}": 2.0 for batch in REPEATS},
        **{f"speedup_b{batch}_ci95": (1.9, 2.1) for batch in REPEATS},
    }
    _, chosen, missing = table(
        {"prune-0.4-int8": measured}, {"olive-static": "no such module"}, "prune-0.4-int8"
    ).splitlines()
    assert chosen.split()[:3] == ["prune-0.4-int8", "*", "90.00%"]
    assert chosen.endswith("12 kB  3/4")
    assert missing.split() == ["olive-static", "none:", "no", "such", "module"]

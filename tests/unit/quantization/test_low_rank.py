"""Rows of a bag of words in fewer numbers: the same answers, and other graphs as they were."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.core.quantization.low_rank import shorten_rows
from tasks.core.quantization.stored import halve_weights, quantize_weights

ROWS, WORDS = 300, 12
ROWS_NG = np.random.default_rng(1).integers(0, ROWS, (64, WORDS))


def bag(classes: int, width: int = 48, between: str = "Div") -> onnx.ModelProto:
    """Rows are summed, divided by how many there are (or what is `between`) and read by a linear layer."""
    draws = np.random.default_rng(0)
    values = {
        "table": draws.normal(size=(ROWS, width)).astype(np.float32),
        "count": np.full((1,), WORDS, np.float32),
        "weight": draws.normal(size=(classes, width)).astype(np.float32),
        "bias": draws.normal(size=classes).astype(np.float32),
    }
    values["table"][0] = 0
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["words"], "gather"),
        helper.make_node("ReduceSum", ["words", "axis"], ["sum"], "sum", keepdims=0),
        helper.make_node(between, ["sum", "count"], ["mean"], "mean"),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "bag",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["N", "G"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(np.array([1]), "axis"),
            *(numpy_helper.from_array(value, name) for name, value in values.items()),
        ],
        value_info=[helper.make_tensor_value_info("words", TensorProto.FLOAT, ["N", "G", width])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def shortened(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.load_from_string(model.SerializeToString())
    table = next(i for i in copied.graph.initializer if i.name == "table")
    shorten_rows(copied.graph, copied.graph.node[0], table)
    return copied


def width_of(model: onnx.ModelProto) -> int:
    table = next(i for i in model.graph.initializer if i.name.startswith("table") and len(i.dims) == 2)
    return int(table.dims[1])


def probabilities(model: onnx.ModelProto) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits_NK,) = session.run(None, {"rows": ROWS_NG})
    powers_NK = np.exp(logits_NK.astype(np.float64) - logits_NK.max(1, keepdims=True))
    return powers_NK / powers_NK.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7, 21, 48])
def test_answers_stay_when_rows_hold_a_number_less_than_there_are_classes(classes: int) -> None:
    model = bag(classes)
    smaller = shortened(model)
    assert width_of(smaller) == classes - 1
    assert probabilities(smaller) == pytest.approx(probabilities(model), abs=1e-6)
    table = next(numpy_helper.to_array(i) for i in smaller.graph.initializer if i.name == "table")
    assert not table[0].any(), "what nobody knows says nothing"


def test_rows_stay_when_there_are_more_classes_than_numbers() -> None:
    model = bag(49)
    assert shortened(model) == model


def test_rows_stay_when_something_else_than_their_mean_is_read() -> None:
    model = bag(7, between="Pow")
    assert shortened(model) == model


def test_answers_stay_when_the_shorter_rows_are_stored_in_fewer_bits() -> None:
    model = bag(7)
    eight, sixteen = quantize_weights(model), halve_weights(model)
    assert width_of(eight) == width_of(sixteen) == 6
    assert probabilities(eight) == pytest.approx(probabilities(model), abs=0.02)
    assert probabilities(sixteen) == pytest.approx(probabilities(model), abs=0.002)
    assert eight.ByteSize() < model.ByteSize() / 20

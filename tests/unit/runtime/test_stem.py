"""A graph whose first layer reads squares of pixels computes what it did."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.core.data.inputs import ImageInput
from tasks.core.runtime.graphs import INPUT, network_input, side_of, take_raw
from tasks.core.runtime.session import session
from tasks.core.runtime.stem import fold_stem, in_squares

SIDE = 24
GIVEN = ImageInput((SIDE, SIDE, 3), [0.35] * 3, [0.2] * 3)


def graph(
    kernel: int, means: int = 1, channels: int = 3, out: int = 5, **attributes: list[int] | int
) -> onnx.ModelProto:
    """A convolution, of means over squares where `means` is above 1."""
    draws = np.random.default_rng(0)
    group = attributes.get("group", 1)
    assert isinstance(group, int)
    weights = draws.normal(size=(out, channels // group, kernel, kernel)).astype(np.float32)
    bias = draws.normal(size=out).astype(np.float32)
    nodes, read = [], INPUT
    if means > 1:
        square: dict[str, Any] = {"kernel_shape": [means] * 2, "strides": [means] * 2}
        nodes, read = [helper.make_node("AveragePool", [read], ["means"], "means", **square)], "means"
    nodes.append(helper.make_node("Conv", [read, "weights", "bias"], ["logits"], "conv", **attributes))
    content = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", channels, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", out, "H", "W"])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def images(channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, channels)).astype(np.uint8)


def computed(model: onnx.ModelProto, x_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    side = side_of(model, x_NHWC.shape[1:])
    x_NCHW = network_input(x_NHWC, GIVEN, side)
    return np.asarray(session(model.SerializeToString(), 1).run(None, {INPUT: x_NCHW})[0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [2, 1, 0, 3], [3, 3, 3, 3]], ids=str
)
@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
@pytest.mark.parametrize(("means", "stride"), [(1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1)])
def test_convolution_computes_the_same_when_it_reads_squares(
    means: int, stride: int, kernel: int, pads: list[int], channels: int
) -> None:
    model = graph(kernel, means, channels, strides=[stride, stride], pads=pads)
    folded = fold_stem(model)
    assert side_of(folded, (SIDE, SIDE, channels)) == max(means, stride if means == 1 else 1)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert computed(folded, images(channels)) == pytest.approx(computed(model, images(channels)), abs=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        graph(3),
        graph(3, strides=[5, 5]),  # 24 pixels are no multiple of it
        graph(3, strides=[2, 1]),
        graph(3, strides=[2, 2], dilations=[2, 2]),
        graph(3, channels=8, strides=[2, 2]),
        graph(3, group=3, out=6, strides=[2, 2]),
        graph(3, means=5),
    ],
)
def test_graph_takes_images_as_they_are_when_its_first_layer_cannot_read_squares(
    model: onnx.ModelProto,
) -> None:
    assert fold_stem(model) == model


def test_file_takes_the_same_images_when_its_graph_reads_squares() -> None:
    model = graph(3, means=4)
    x_NHWC = images()
    plain, folded = (
        session(take_raw(m, GIVEN).SerializeToString(), 1).run(None, {"image": x_NHWC})[0]
        for m in (model, fold_stem(model))
    )
    assert folded == pytest.approx(plain, abs=1e-4)


def test_squares_hold_their_pixels_row_by_row_when_they_become_channels() -> None:
    x_NHWC = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    squares = in_squares(x_NHWC, 2)
    assert squares.shape == (1, 2, 2, 12)
    assert squares[0, 1, 0].tolist() == x_NHWC[0, 2:, :2].reshape(-1).tolist()
    assert (in_squares(x_NHWC, 1) == x_NHWC).all()

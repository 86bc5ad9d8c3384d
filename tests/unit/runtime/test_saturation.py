"""Whether 8-bit sums overflow here, and which weights make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.core.runtime import saturation
from tasks.core.runtime.session import fingerprint
from tests.networks import kernels


def test_sums_overflow_when_the_processor_adds_in_16_bits() -> None:
    machine = fingerprint()
    assert machine["u8s8_saturates"] == ("avx2" in machine["isa"] and not machine["vnni"])


def test_probe_computes_in_integers_when_it_is_optimized() -> None:
    kinds = kernels(saturation._largest_sum().SerializeToString())
    assert "QLinearConv" in kinds
    assert "Conv" not in kinds


@pytest.mark.parametrize(
    ("weight", "kind", "large"),
    [
        (64, np.int8, False),
        (-64, np.int8, False),
        (65, np.int8, True),
        (-128, np.int8, True),
        (127, np.uint8, False),
        (127, np.int32, False),
    ],
)
def test_8bit_weights_are_found_when_a_product_of_two_may_overflow(
    weight: int, kind: type[np.generic], large: bool, tmp_path: Path
) -> None:
    weights_KCHW = np.zeros((2, 3, 1, 1), kind)
    weights_KCHW[1, 2] = weight
    scales_K = np.full(3, 127, np.int8)  # no weights: one dimension
    node = helper.make_node("Identity", ["weights"], ["same"])
    value = helper.make_tensor_value_info("same", TensorProto.UNDEFINED, None)
    constants = [numpy_helper.from_array(weights_KCHW, "weights"), numpy_helper.from_array(scales_K, "other")]
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [value], constants)), tmp_path / "m.onnx")
    assert saturation.has_8bit_weights(tmp_path / "m.onnx") == large

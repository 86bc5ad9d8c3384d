"""What each operator of a graph computes, in torch: its inputs and attributes in, its output out; several, where it has such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

from tasks.core.training.pointwise import is_unsound, pixels_read


def _conv(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    x_NCHW, weight, *bias = inputs
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padding = (top, left)
    if padding != (bottom, right):
        x_NCHW, padding = F.pad(x_NCHW, (left, right, top, bottom)), (0, 0)
    if padding == (0, 0) and is_unsound(weight, strides):
        x_NCHW, strides = pixels_read(x_NCHW, strides), [1, 1]
    return F.conv2d(
        x_NCHW, weight, bias[0] if bias else None, strides, padding, dilations, attributes.get("group", 1)
    )


def _gemm(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    x, weight, *bias = inputs
    return F.linear(x, weight if attributes.get("transB") else weight.T, bias[0] if bias else None)


def _max_pool(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    return F.max_pool2d(inputs[0], attributes["kernel_shape"], attributes.get("strides"), pads[:2])


def _label_encoder(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    keys_V = torch.tensor(attributes["keys_tensor"].int64_data, device=inputs[0].device)
    return cast(Tensor, torch.ops.modelpress.lookup(keys_V, inputs[0]))


def _pad(inputs: list[Tensor], _: dict[str, Any]) -> Tensor:
    sides = inputs[1].tolist()
    before, after = sides[: len(sides) // 2], sides[len(sides) // 2 :]
    return F.pad(inputs[0], [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair])


def _unsqueeze(inputs: list[Tensor], _: dict[str, Any]) -> Tensor:
    x, axes = inputs
    for axis in sorted(axes.flatten().tolist()):
        x = x.unsqueeze(axis)
    return x


def _axes(inputs: list[Tensor]) -> list[int]:
    return [int(axis) for axis in inputs[1].tolist()]


def _reshape(inputs: list[Tensor], _: dict[str, Any]) -> Tensor:
    x, shape = inputs
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


def _split(inputs: list[Tensor], attributes: dict[str, Any]) -> tuple[Tensor, ...]:
    x, *sizes = inputs
    axis = attributes.get("axis", 0)
    return torch.split(x, sizes[0].tolist(), axis) if sizes else x.chunk(attributes["num_outputs"], axis)


_TYPES = {TensorProto.FLOAT: torch.float32, TensorProto.INT64: torch.int64}
OPERATORS: dict[str, Callable[[list[Tensor], dict[str, Any]], Tensor | tuple[Tensor, ...]]] = {
    # Of texts: what finds the rows of words, and what is done with them.
    "BitwiseAnd": lambda inputs, _: inputs[0] & inputs[1],
    "Cast": lambda inputs, attributes: inputs[0].to(_TYPES[attributes["to"]]),
    "Concat": lambda inputs, attributes: torch.cat(inputs, attributes["axis"]),
    "Cos": lambda inputs, _: inputs[0].cos(),
    "CumSum": lambda inputs, _: inputs[0].cumsum(int(inputs[1])),
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "Equal": lambda inputs, _: inputs[0] == inputs[1],
    "Gather": lambda inputs, _: F.embedding(inputs[1], inputs[0], padding_idx=0),
    "LabelEncoder": _label_encoder,
    "Max": lambda inputs, _: torch.maximum(*inputs),
    "Not": lambda inputs, _: ~inputs[0],
    "Pad": _pad,
    "ReduceMax": lambda inputs, attributes: inputs[0].amax(
        _axes(inputs), bool(attributes.get("keepdims", 1))
    ),
    "ReduceSum": lambda inputs, attributes: inputs[0].sum(_axes(inputs), bool(attributes.get("keepdims", 1))),
    "Reshape": _reshape,
    "Sign": lambda inputs, _: inputs[0].sign(),
    "Sin": lambda inputs, _: inputs[0].sin(),
    "Softmax": lambda inputs, attributes: inputs[0].softmax(attributes.get("axis", -1)),
    "Split": _split,
    "Squeeze": lambda inputs, _: inputs[0].squeeze(int(inputs[1])),
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Transpose": lambda inputs, attributes: inputs[0].permute(attributes["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": lambda inputs, _: torch.where(*inputs),
    # Of all.
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Clip": lambda inputs, _: inputs[0].clamp(*inputs[1:]),
    "Conv": _conv,
    "Flatten": lambda inputs, _: inputs[0].flatten(1),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda inputs, _: F.hardsigmoid(inputs[0]),
    "HardSwish": lambda inputs, _: F.hardswish(inputs[0]),
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "MaxPool": _max_pool,
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Sigmoid": lambda inputs, _: inputs[0].sigmoid(),
}

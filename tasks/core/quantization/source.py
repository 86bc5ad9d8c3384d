"""What schemes start from, and what they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tasks.core.config.compression_params import QuantizeParams
from tasks.core.data.dataset import Dataset, balanced
from tasks.core.data.inputs import ImageInput
from tasks.core.quantization.rows import rows_as_read
from tasks.core.quantization.static import Calibrated, calibrate
from tasks.core.quantization.stored import quantize_weights
from tasks.core.runtime.graphs import take_raw, to_bytes
from tasks.core.runtime.session import predict, session
from tasks.core.runtime.stem import fold_stem


@dataclass(frozen=True)
class Source:
    """What a scheme starts from: the graph of a network, and the data."""

    params: QuantizeParams
    dataset: Dataset
    graph: onnx.ModelProto

    @cached_property
    def x_N(self) -> NDArray[Any]:
        """The calibration examples, of all classes alike: what calibration never sees, int8 clips."""
        train = self.dataset.train
        rows = balanced(train.labels_N, self.params.calibration_images, self.params.seed)
        return np.ascontiguousarray(train.x_N[rows])

    @cached_property
    def calibrated(self) -> Calibrated:
        """The graph, its first layer in a form that suits integers, with the ranges of its tensors."""
        return calibrate(
            fold_stem(self.graph) if isinstance(self.dataset.input, ImageInput) else self.graph,
            self.x_N,
            self.dataset.input,
            method=self.params.calibrator,
            weight_bits=self.params.weight_bits,
            per_channel=self.params.per_channel,
        )

    def file(self, graph: onnx.ModelProto) -> bytes:
        """`graph`, from x_NCHW to logits, as the content of a file that takes raw images."""
        return to_bytes(take_raw(graph, self.dataset.input))

    def logits(self, content: bytes) -> NDArray[np.float32]:
        """Of the validation images, [N, K]."""
        return predict(session(content, 1), self.dataset.val.raw_N)

    def accuracy(self, content: bytes) -> float:
        """On the validation images."""
        return float((self.logits(content).argmax(1) == self.dataset.val.labels_N).mean())


@dataclass(frozen=True)
class TrainableSource(Source):
    """With what a network is trained on: its folder, and policy.json of augment."""

    model: Path
    policy: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """A graph from x_NCHW to logits, why nodes of it stayed in floating point, and what went otherwise than
    asked for."""

    graph: onnx.ModelProto
    reasons: dict[str, str] = field(default_factory=dict)
    warning: str = ""

    @classmethod
    def in_int8(
        cls,
        graph: onnx.ModelProto,
        by_rule: dict[str, str],
        costly: Mapping[str, str] = MappingProxyType({}),
        warning: str = "",
    ) -> Made:
        """A graph that computes in int8 but for some nodes, by a rule or because they lost too much. Weights of the
        former are stored in int8 all the same: of many classes, the classifier's would be most of the file."""
        return cls(quantize_weights(rows_as_read(graph), by_rule), {**by_rule, **costly}, warning)

"""Rounding shifts means, most of all behind depthwise convolutions; biases take the shift back."""

import numpy as np
import pytest

from tasks.core.quantization.bias_correction import correct_biases, means
from tasks.core.quantization.schemes import SCHEMES
from tasks.core.quantization.source import Made
from tasks.core.quantization.static import CLASSIFIER, batches, classifier, quantize_static
from tasks.core.runtime.graphs import network_input
from tasks.core.runtime.weights import WEIGHTED
from tests.networks import source_of

pytestmark = pytest.mark.slow  # graphs are exported


def test_means_of_unseen_images_come_closer_to_the_float_graphs_when_biases_are_corrected() -> None:
    source = source_of("mobilenet_v3_small")
    head = classifier(source.graph)
    plain = quantize_static(source.calibrated, [head])
    corrected = correct_biases(plain, source.calibrated, source.x_N)
    x_NCHW = network_input(source.dataset.val.x_N, source.dataset.input)
    outputs = {node.name: node.output[0] for node in source.graph.graph.node}

    def deviation(graph) -> float:  # type: ignore[no-untyped-def]
        """How far the layers' means are from those in floating point, relative to their size."""
        layers = [node for node in graph.graph.node if node.op_type in WEIGHTED and node.name != head]
        wanted = means(source.graph, [outputs[node.name] for node in layers], x_NCHW)
        found = means(graph, [node.output[0] for node in layers], x_NCHW)
        gaps = [np.abs(f - w).mean() / np.abs(w).mean() for f, w in zip(found, wanted, strict=True)]
        return float(np.mean(gaps))

    assert deviation(corrected) < 0.5 * deviation(plain)

    made, wanted = SCHEMES["int8"](source), Made.in_int8(corrected, {head: CLASSIFIER})
    assert source.file(made.graph) == source.file(wanted.graph), "there are depthwise convolutions"


def test_int8_is_not_corrected_when_there_are_no_depthwise_convolutions() -> None:
    source = source_of("resnet_small")
    head = classifier(source.graph)
    plain = Made.in_int8(quantize_static(source.calibrated, [head]), {head: CLASSIFIER})
    assert source.file(SCHEMES["int8"](source).graph) == source.file(plain.graph)


def test_parts_are_of_like_length_and_no_longer_when_they_are_of_texts() -> None:
    lengths_N = np.random.default_rng(0).integers(1, 40, 100)
    x_NL = (np.arange(50) < lengths_N[:, None]) * np.arange(1, 101)[:, None]
    found = list(batches(x_NL))
    assert [len(part) for part in found] == [32, 32, 32, 4]
    assert [part.shape[1] for part in found] == [*sorted(lengths_N)[31::32], max(lengths_N)]
    numbers, times = np.unique(np.concatenate([part.ravel() for part in found]), return_counts=True)
    assert dict(zip(numbers[1:], times[1:], strict=True)) == dict(enumerate(lengths_N, 1)), "every one, whole"

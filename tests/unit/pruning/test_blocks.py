"""Blocks that can leave a network, found in its graph, and what it computes without them."""

import copy

import numpy as np
import pytest
import torch

from tasks.core.models.architectures import build
from tasks.core.models.saved import mac_count, removed_blocks
from tasks.core.models.spec import Spec
from tasks.core.pruning.blocks import Block, find_blocks, gate_means, take_out
from tasks.core.pruning.channels import cut, find_groups
from tasks.core.runtime.branches import find_branches
from tasks.core.runtime.export import export, refill
from tasks.core.runtime.graphs import INPUT
from tasks.core.runtime.session import session
from tests.networks import GIVEN, SHAPE, network_of, source_of

pytestmark = pytest.mark.slow  # graphs are exported

EXAMPLE = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def network(arch: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(Spec(arch, 16, 0.0, SHAPE, 4)).eval()
    for (
        module
    ) in model.modules():  # statistics as of a trained network: a fresh one's layers do next to nothing
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            module.weight.data.uniform_(0.5, 1.5)
    return model


def logits(graph: object, x_NCHW: torch.Tensor) -> np.ndarray:
    return np.asarray(session(graph.SerializeToString(), 1).run(None, {INPUT: x_NCHW.numpy()})[0])  # type: ignore[attr-defined]


def test_blocks_are_those_beside_a_shortcut_when_the_network_is_residual() -> None:
    assert find_blocks(network_of("resnet_small"), source_of("resnet_small").graph, EXAMPLE) == [
        Block("blocks.0")
    ]


def test_blocks_are_gates_and_residual_blocks_when_the_network_has_both() -> None:
    blocks = find_blocks(network_of("mobilenet_v3_small"), source_of("mobilenet_v3_small").graph, EXAMPLE)
    assert [b.name for b in blocks if not b.readers] == [f"features.{i}" for i in (3, 5, 6, 8, 10, 11)]
    gates = {b.name: b.readers for b in blocks if b.readers}
    assert gates["features.4.block.2"] == ("features.4.block.3.0",)
    assert len(gates) == 9


def test_no_branch_is_found_when_both_sides_of_a_sum_compute_something() -> None:
    graph = source_of("resnet_small").graph.graph
    sums = [node.name for node in graph.node if node.op_type == "Add"]
    assert len(sums) == 3
    assert [branch.merge for branch in find_branches(graph)] == sums[:1]


@pytest.mark.parametrize(
    ("arch", "gone"),
    [
        ("resnet_small", ["blocks.0"]),
        pytest.param("resnet18", ["layer1.0", "layer1.1", "layer4.1"]),
        pytest.param("mobilenet_v3_small", ["features.4.block.2", "features.5", "features.6"]),
    ],
)
def test_refilled_graph_computes_what_the_network_does_when_blocks_and_channels_are_gone(
    arch: str, gone: list[str]
) -> None:
    model = network(arch)
    graph, groups = export(model, GIVEN), find_groups(model, GIVEN, 8)
    smaller = copy.deepcopy(model)
    take_out(smaller, [Block(name) for name in gone], {})
    cut(smaller, groups, {group.name: range(group.width // 2) for group in groups.prunable})
    assert removed_blocks(smaller) == gone
    assert mac_count(smaller, GIVEN) < mac_count(model, GIVEN)
    x_NCHW = torch.rand(3, 1, 28, 28)
    with torch.inference_mode():
        wanted = smaller.eval()(x_NCHW).numpy()
    assert logits(refill(graph, smaller), x_NCHW) == pytest.approx(wanted, abs=1e-3)


def test_network_keeps_its_answers_when_a_gate_becomes_its_mean() -> None:
    source = source_of("mobilenet_v3_small")
    model, val = network_of("mobilenet_v3_small"), source.dataset.val
    blocks = [b for b in find_blocks(model, source.graph, EXAMPLE) if b.readers]
    gates = gate_means(model, blocks, source.dataset.train, GIVEN)
    x_NCHW = (torch.tensor(val.raw_N[:200]).permute(0, 3, 1, 2) - 100) * 0.015

    def distance(means: dict[str, torch.Tensor]) -> float:
        without = copy.deepcopy(model)
        take_out(without, blocks, means)
        with torch.inference_mode():
            return float((without(x_NCHW) - model(x_NCHW)).square().mean())

    assert distance(gates) < 0.5 * distance({name: torch.ones_like(mean) for name, mean in gates.items()})

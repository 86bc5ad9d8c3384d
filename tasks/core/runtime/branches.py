"""Branches of a float graph: what is added to, or multiplied with, the tensor that it was computed from.

Without a branch the graph computes on, with that tensor in place of the sum or product: this is what
makes residual blocks and squeeze-and-excitation removable. They are found in the graph, so that no
network has to say which of its blocks are of this kind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from tasks.core.runtime.weights import WEIGHTED


@dataclass(frozen=True)
class Branch:
    """A part of a graph with one way in and one way out.

    Attributes:
        merge: the node, an Add or a Mul, where the branch comes back to what it was computed from.
        entry: which input of that node this is.
        layers: what is in the branch, by the names of the layers that hold the weights.
        gate: whether the merge is a Mul.
        readers: the layers that read the merge; none where something else reads it too.
    """

    merge: str
    entry: int
    layers: frozenset[str]
    gate: bool
    readers: frozenset[str]


def find_branches(graph: onnx.GraphProto) -> list[Branch]:
    """The branches with weights, in the graph's order."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {"", *(initializer.name for initializer in graph.initializer)}
    branches = []
    for merge in graph.node:
        if merge.op_type not in ("Add", "Mul"):
            continue
        for entry in range(2):
            inside = _between(merge.input[entry], merge.input[1 - entry], makers, constants)
            layers = frozenset(layer(node) for node in inside.values() if node.op_type in WEIGHTED)
            read = {
                reader.name for node in inside.values() for name in node.output for reader in readers[name]
            }
            if layers and read - inside.keys() == {merge.name}:
                after = readers.get(merge.output[0], [])
                alone = all(node.op_type in WEIGHTED for node in after)
                read_by = frozenset(layer(node) for node in after) if alone else frozenset[str]()
                branches.append(Branch(merge.name, entry, layers, merge.op_type == "Mul", read_by))
    return branches


def bypass(graph: onnx.GraphProto, blocks: Collection[str]) -> None:
    """Remove the branches whose layers are those of `blocks`, submodules by name, from `graph`, in place."""
    layers = [layer(node) for node in graph.node if node.op_type in WEIGHTED]
    gone = [{name for name in layers if name.startswith(f"{block}.")} for block in blocks]
    entries = {branch.merge: branch.entry for branch in find_branches(graph) if branch.layers in gone}
    instead: dict[str, str] = {}
    rectified: set[str] = set()
    for node in graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
        if node.name in entries:
            instead[node.output[0]] = node.input[entries[node.name]]
        elif node.op_type == "Relu":
            if node.input[0] in rectified:  # a block that ended so is gone: once is enough
                instead[node.output[0]] = node.input[0]
            rectified.add(node.output[0])
    drop_unused(graph)


def layer(node: onnx.NodeProto) -> str:
    """The name of the layer whose weights a node has."""
    return str(node.input[1]).rpartition(".")[0]


def _between(
    entry: str, end: str, makers: Mapping[str, onnx.NodeProto], constants: Collection[str]
) -> dict[str, onnx.NodeProto]:
    """The nodes that compute `end` from `entry` and constants, by name; none if something else goes in."""
    inside: dict[str, onnx.NodeProto] = {}
    wanted = [end]
    while wanted:
        name = wanted.pop()
        if name in makers:
            node = makers[name]
            if node.name not in inside:
                inside[node.name] = node
                wanted += [given for given in node.input if given not in (entry, *constants)]
        else:
            return {}
    return inside


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes that nothing reads."""
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))

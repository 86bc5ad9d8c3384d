"""What stands for words in a network: found, counted, saved, cut, exported and quantized."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.core.augmentation.policy import resolve_policy
from tasks.core.config.compression_params import QuantizeParams
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.data.dataset import Dataset, Split
from tasks.core.data.inputs import TextInput
from tasks.core.data.texts import Texts, Tokens
from tasks.core.data.tokens import Words, hashes_of
from tasks.core.models.architectures import OF_TEXTS
from tasks.core.models.saved import load_model, save_model
from tasks.core.models.spec import Spec
from tasks.core.models.tables import FACTOR, Table, add_rows, lookup, most_frequent, pairs
from tasks.core.models.text_transformer import HEAD, TextTransformer
from tasks.core.pruning.channels import cut, find_groups
from tasks.core.pruning.criteria import CRITERIA
from tasks.core.pruning.cutting import loss_gradients, prune_channels, score
from tasks.core.pruning.groups import HEADS, ROWS
from tasks.core.quantization.rows import rows_as_read
from tasks.core.quantization.schemes import SCHEMES
from tasks.core.quantization.source import TrainableSource
from tasks.core.quantization.static import exact, quantize_static
from tasks.core.runtime.export import export, figures, refill
from tasks.core.runtime.graphs import save_graph, to_bytes
from tasks.core.runtime.session import predict, session
from tasks.core.training.recipes import new_network, spec_of

ARCHS = ("text_bag", "text_cnn", "text_transformer")
WORDS = {0: ["wind", "rain", "cloud", "storm"], 1: ["bread", "soup", "salt", "oven"]}
COMMON = ["the", "a", "and", "of", "in", "is"]
ODD = ["", "   ", "\x00", "😀 🎉", "كتاب جديد", "日本語", "nobody knows these", "x" * 100_000, "wind " * 5000]


def sentences(count: int, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    draws = np.random.default_rng(seed)
    labels_N = draws.integers(0, 2, count)
    texts = [
        " ".join(draws.choice(COMMON + WORDS[label], draws.integers(6, 20)).tolist()) for label in labels_N
    ]
    return texts, labels_N


def split(count: int, seed: int, longest: int = 24) -> Split:
    texts, labels_N = sentences(count, seed)
    parts = list(Words(longest).tokens_of(np.array(texts, object)))
    flat, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Split(Texts.of_strings(texts), labels_N, tokens_N=Tokens.of(flat, np.cumsum(lengths)))


TRAIN, VAL = split(600, 0), split(200, 1)
DATASET = Dataset(["weather", "food"], TextInput(24, 12), "digest", TRAIN, VAL, VAL)


def params(arch: str) -> TrainParams:
    return TrainParams(arch=arch, width=16, vocabulary=200)


def arch_of(network: nn.Module) -> str:
    return next(name for name, kind in OF_TEXTS.items() if isinstance(network, kind))


def trained(arch: str) -> nn.Module:
    torch.manual_seed(0)
    network = new_network(params(arch), DATASET)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.3  # or its averages come behind in so few steps
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for start in [*range(0, 600, 50)] * 8:
        some = TRAIN.taken(slice(start, start + 50))
        logits_NK = network.train()(torch.from_numpy(np.asarray(some.x_N)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits_NK, torch.from_numpy(some.labels_N)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module", params=ARCHS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return trained(request.param)


@pytest.fixture(scope="module")
def source(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> TrainableSource:
    folder = tmp_path_factory.mktemp("network")
    arch = arch_of(network)
    save_model(network, spec_of(params(arch), DATASET), folder)
    graph = export(network, DATASET.input)
    save_graph(graph, folder)
    values = QuantizeParams(
        schemes=["fp32"], calibration_images=64, qat_epochs=1, qat_batch_size=50, qat_lr=0.001
    )
    policy = resolve_policy(AugmentParams(), DATASET)
    return TrainableSource(values, DATASET, graph, folder, policy)


def test_network_is_right_about_texts_that_it_has_not_seen(network: nn.Module) -> None:
    assert accuracy(network) > 0.9


def accuracy(network: nn.Module) -> float:
    with torch.inference_mode():
        logits_NK = network(torch.from_numpy(np.asarray(VAL.x_N))).numpy()
    return float((logits_NK.argmax(1) == VAL.labels_N).mean())


# ---- rows


def test_rows_are_found_by_their_keys_and_all_else_is_row_zero() -> None:
    keys_V = torch.tensor([3, 7, 2**60])
    found = lookup(keys_V, torch.tensor([[3, 2**60, 5, 0, 7, -1, 2**62]]))
    assert found.tolist() == [[1, 3, 0, 0, 2, 0, 0]]
    assert lookup(keys_V[:0], torch.tensor([[3, 0]])).tolist() == [[0, 0]]


def test_keys_of_pairs_are_those_of_neighbours_and_of_the_last_with_nothing() -> None:
    tokens_NL = torch.tensor([[5, 6, 7], [5, 0, 0]])
    assert pairs(tokens_NL).tolist() == [
        [5 * FACTOR + 6, 6 * FACTOR + 7, 7 * FACTOR], [5 * FACTOR, 0, 0],
    ]  # fmt: skip


def test_keys_of_pairs_are_five_bytes_long_when_tokens_are_large() -> None:
    first, second = 2**32 - 1, 2**32 - 9
    assert pairs(torch.tensor([[first, second]]))[0, 0] == (first * FACTOR + second) % 2**35
    tokens = Tokens.of(np.array([first, second] * 2, np.uint32), np.array([2, 4]))
    found = most_frequent(tokens, 2, 10)
    assert set(found.tolist()) == {first, second, *pairs(torch.tensor([[first, second]]))[0].tolist()}


def test_vocabulary_holds_what_stands_in_the_most_places_when_there_is_room_for_few() -> None:
    tokens = Tokens.of(np.array([5, 6, 5, 6, 9, 5], np.uint32), np.array([2, 4, 6]))
    assert most_frequent(tokens, 1, 10).tolist() == [5, 6], "what stands once is no row"
    assert most_frequent(tokens, 1, 1).tolist() == [5]
    assert most_frequent(tokens, 2, 10).tolist() == sorted([5, 6, 5 * FACTOR + 6, 6 * FACTOR])


def test_network_has_rows_for_words_of_the_training_texts_when_it_is_new(network: nn.Module) -> None:
    table = network.get_submodule("table")
    assert isinstance(table, Table)
    known = set(hashes_of([*COMMON, *WORDS[0], *WORDS[1]]).values())
    assert known <= set(table.keys.tolist())
    assert not table.weight[0].any()


def test_rows_of_zeros_are_added_for_what_has_none_when_there_is_room(network: nn.Module) -> None:
    wider, before = copy.deepcopy(network), network.get_submodule("table").keys.tolist()
    new = list(hashes_of(["snow", "hail", "wind"]).values())
    add_rows(wider, new, len(before) + 1)
    table = wider.get_submodule("table")
    (added,) = set(table.keys.tolist()) - set(before)
    assert added == min(set(new) - set(before))
    assert table.keys.tolist() == sorted([*before, added])
    assert not table.weight[1 + table.keys.tolist().index(added)].any()
    x = torch.from_numpy(np.asarray(VAL.x_N))
    with torch.inference_mode():
        assert torch.equal(wider.eval()(x), network(x)), "all others are found where they were"


def test_answer_is_the_same_when_a_text_is_in_a_batch_with_longer_ones(network: nn.Module) -> None:
    alone = torch.from_numpy(np.asarray(VAL.x_N[np.array([0])]))
    batch = torch.from_numpy(np.asarray(VAL.x_N))[:1]
    assert batch.shape[1] > alone.shape[1]
    with torch.inference_mode():
        torch.testing.assert_close(network(alone), network(batch))


def test_network_is_the_same_when_saved_cut_and_loaded(network: nn.Module, tmp_path: Path) -> None:
    cut_one = copy.deepcopy(network)
    groups = find_groups(cut_one, DATASET.input, 4)
    prune_channels(cut_one, groups, score(cut_one, groups, "l2"), 0.5)
    save_model(cut_one, spec_of(params(arch_of(network)), DATASET), tmp_path)
    loaded, _ = load_model(tmp_path)
    x = torch.from_numpy(np.asarray(VAL.x_N))
    with torch.inference_mode():
        assert torch.equal(loaded(x), cut_one.eval()(x))


# ---- pruning


def test_rows_are_a_group_and_leave_with_their_keys_when_cut(network: nn.Module) -> None:
    smaller = copy.deepcopy(network)
    groups = find_groups(smaller, DATASET.input, 4)
    (rows,) = [group for group in groups.prunable if group.name == f"table.{ROWS}"]
    keys = network.get_submodule("table").keys
    left = cut(smaller, groups, {rows.name: [0, 2]})
    table = smaller.get_submodule("table")
    assert table.keys.tolist() == [key for i, key in enumerate(keys.tolist()) if i not in (0, 2)]
    assert next(group.width for group in left.prunable if group.name == rows.name) == rows.width - 2
    assert len(table.weight) == len(table.keys) + 1


def test_heads_leave_as_a_whole_when_an_attention_is_cut() -> None:
    torch.manual_seed(0)
    network = TextTransformer(Spec("text_transformer", 2 * HEAD, 0.0, None, 2, rows=20)).eval()
    groups = find_groups(network, DATASET.input, 4)
    heads = next(group for group in groups.prunable if group.name == f"blocks.0.attention.{HEADS}")
    assert heads.width == 2
    attention = network.blocks[0].attention
    x_NDL1, nothing_NL = torch.randn(3, 2 * HEAD, 5, 1), torch.zeros(3, 5, dtype=torch.bool)
    turns = network.positions(nothing_NL)
    with torch.inference_mode():
        both = attention(x_NDL1, turns, nothing_NL)
        first, second = copy.deepcopy(network), copy.deepcopy(network)
        cut(first, groups, {heads.name: [1]})
        cut(second, groups, {heads.name: [0]})
        parts = [part.blocks[0].attention(x_NDL1, turns, nothing_NL) for part in (first, second)]
        nothing = attention.gives[1](torch.zeros_like(both))
    torch.testing.assert_close(parts[0] + parts[1] - nothing, both)


@pytest.mark.parametrize(
    "network", ["text_bag", "text_cnn"], indirect=True
)  # a transformer's rows are normalised: their sizes say little
@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name not in ("random", "bn_scale")])
def test_criterion_keeps_the_words_that_tell_classes_apart_when_half_of_the_rows_leave(
    criterion: str, network: nn.Module
) -> None:
    def left(name: str, seed: int = 0) -> float:
        smaller = copy.deepcopy(network)
        groups = find_groups(smaller, DATASET.input, 1)
        gradients = loss_gradients(smaller, TRAIN, DATASET.input) if name == "taylor" else None
        prune_channels(smaller, groups, score(smaller, groups, name, gradients, seed), {f"table.{ROWS}": 0.5})
        return accuracy(smaller.eval())

    assert left(criterion) > np.mean([left("random", seed) for seed in range(5)])
    assert left(criterion) > 0.9


# ---- graphs


@pytest.mark.slow
def test_file_takes_raw_texts_and_computes_what_the_network_does(
    source: TrainableSource, network: nn.Module
) -> None:
    assert figures(network, source.graph, DATASET)["graph_difference"] < 1e-4
    run = session(source.file(source.graph), 1)
    assert [(given.name, given.type) for given in run.get_inputs()] == [("text", "tensor(string)")]
    parts = list(Words(24).tokens_of(np.array(ODD, object)))
    flat, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    tokens_NL = np.asarray(Tokens.of(flat, np.cumsum(lengths)))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(tokens_NL)).numpy()
    assert predict(run, np.array(ODD, object)) == pytest.approx(wanted, abs=1e-4)
    for text, logits_K in zip(ODD, wanted, strict=True):
        assert predict(run, np.array([text], object))[0] == pytest.approx(logits_K, abs=1e-4), "alone as well"


def numbered(graph: onnx.ModelProto) -> bytes:
    """The graph with its tensors numbered in order: the exporter counts on while it settles shapes."""
    graph = copy.deepcopy(graph)
    names = {name: f"t{i}" for i, node in enumerate(graph.graph.node) for name in node.output}
    for node in graph.graph.node:
        node.name = node.op_type
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    for value in [*graph.graph.value_info, *graph.graph.output]:
        value.name = names[value.name]
    graph.graph.value_info.sort(key=lambda value: value.name)
    return to_bytes(graph)


@pytest.mark.slow
def test_refilled_graph_is_the_exported_one_when_rows_and_channels_have_left(
    source: TrainableSource, network: nn.Module
) -> None:
    smaller = copy.deepcopy(network)
    groups = find_groups(smaller, DATASET.input, 4)
    prune_channels(smaller, groups, score(smaller, groups, "l2"), 0.5)
    again = export(smaller.eval(), DATASET.input)
    assert numbered(refill(source.graph, smaller)) == numbered(again)


@pytest.mark.slow
def test_logits_are_the_same_bits_when_rows_are_stored_as_convolutions_read_them(
    source: TrainableSource,
) -> None:
    quantized = quantize_static(source.calibrated, exact(source.graph))
    content = source.file(rows_as_read(quantized))
    assert np.array_equal(source.logits(content), source.logits(source.file(quantized)))
    if "Conv" in {node.op_type for node in source.graph.graph.node}:
        tables = [i for i in onnx.load_from_string(content).graph.initializer if "table.weight" in i.name]
        assert [table.data_type for table in tables] == [onnx.TensorProto.UINT8]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "int8_dynamic"])
def test_scheme_keeps_the_answers_and_shrinks_the_table_when_it_is_applied(
    scheme: str, source: TrainableSource
) -> None:
    plain = source.file(source.graph)
    content = source.file(SCHEMES[scheme](source).graph)
    same = source.logits(content).argmax(1) == source.logits(plain).argmax(1)
    assert same.mean() > 0.98
    if scheme != "fp32":
        assert len(content) < len(plain)

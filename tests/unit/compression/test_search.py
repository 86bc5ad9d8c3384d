"""Designs, what they are worth, the search over them, and its stop."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import pytest

from tasks.core.common.progress import Progress
from tasks.core.compression.designs import Bench, Design, Worth, sensitivity
from tasks.core.compression.search import (
    ask,
    front,
    open_study,
    sought,
    stalled,
    suggest,
    tell,
    volumes,
    worth_of,
)
from tasks.core.config.compression_params import PressParams
from tasks.core.config.params import SelectParams
from tasks.core.models.saved import smooth_activations
from tasks.core.pruning.channels import find_groups
from tasks.core.quantization.source import Source
from tests.networks import GIVEN, kernels, network_of, source_of

pytestmark = pytest.mark.slow  # graphs are exported

PARAMS = PressParams(trials=30, images=100, criteria=["l2"])
ANY = SelectParams()


@pytest.fixture(scope="module")
def source() -> Source:
    return source_of("resnet_small")


@pytest.fixture(scope="module")
def bench(source: Source) -> Bench:
    return Bench(network_of("resnet_small"), source, ["l2", "random"], 8, 200, 0)


def uniform(bench: Bench, ratio: float, int8: bool = True) -> Design:
    return Design({group.name: ratio for group in bench.groups.prunable}, "l2", int8)


def test_worth_is_that_of_the_dense_network_when_nothing_leaves(bench: Bench, source: Source) -> None:
    worth = bench.worth(uniform(bench, 0.0, int8=False))
    assert worth.accuracy == pytest.approx(source.accuracy(bench.dense), abs=0.05)
    assert 0.5 < worth.speedup < 2
    assert 0.25 * len(bench.dense) < worth.size_bytes < 0.4 * len(bench.dense), "weights are stored in 8 bits"


def test_design_is_smaller_and_faster_when_more_leaves(bench: Bench) -> None:
    whole, half = (bench.worth(uniform(bench, ratio, int8=False)) for ratio in (0.0, 0.5))
    assert half.size_bytes < 0.5 * whole.size_bytes
    assert half.speedup > whole.speedup


def test_only_the_named_group_is_cut_when_the_design_names_one(bench: Bench, source: Source) -> None:
    group = bench.groups.prunable[0]
    cut = bench.cut(Design({group.name: 0.5}, "l2", False))
    widths = {g.name: g.width for g in find_groups(cut, GIVEN, 8).prunable}
    assert widths.get(group.name, 8) == group.width // 2
    before = {g.name: g.width for g in bench.groups.prunable if g.name != group.name}
    assert {name: widths[name] for name in before} == before
    assert network_of("resnet_small").get_submodule(group.name).weight.shape[0] == group.width


def test_float_layers_stay_float_when_the_design_says_so(bench: Bench, source: Source) -> None:
    made = bench.quantized(Design({}, "l2", True, float_layers=2), source)
    assert set(bench.ranked[:2]) < set(made.reasons)
    assert len(made.reasons) == 3


def test_sensitivity_names_each_group_and_block_in_one_precision_when_measured(bench: Bench) -> None:
    with Progress("sensitivity", 99, quiet=True) as progress:
        rows = sensitivity(bench, "l2", [0.5], lambda worth: -worth.size_bytes, progress)
    names = [group.name for group in bench.groups.prunable]
    assert [(row["group"], row["ratio"]) for row in rows] == [
        ("", 0.0),
        *((name, 0.5) for name in names),
        ("blocks.0", 1.0),
    ]
    assert len({row["int8"] for row in rows}) == 1
    assert all(row["size_bytes"] < rows[0]["size_bytes"] for row in rows[1:])


def test_design_is_smaller_when_a_block_leaves(bench: Bench) -> None:
    whole = bench.worth(uniform(bench, 0.0))
    without = bench.worth(Design({}, "l2", True, frozenset(["blocks.0"])))
    assert without.size_bytes < 0.95 * whole.size_bytes


def test_search_tries_relu_for_smooth_activations_when_the_network_has_some(tmp_path: Path) -> None:
    source = source_of("mobilenet_v3_small")
    network = network_of("mobilenet_v3_small")
    bench = Bench(network, source, ["l2"], 8, 200, 0)
    study = open_study(PARAMS, ANY, bench, [], tmp_path / "log")
    designs = [suggest(ask(study, PARAMS), PARAMS, bench) for _ in range(12)]
    assert [design.relu for design in designs] == [False] * 6 + [True] * 6
    cut = bench.cut(designs[6])
    rectified = bench.source_of(cut)
    graph = bench.quantized(designs[6], rectified).graph
    operators = {node.op_type for node in rectified.graph.graph.node}
    assert "Relu" in operators and not operators & {"HardSwish", "Gelu"}
    smooth = bench.quantized(designs[0], bench.source_of(bench.cut(designs[0]))).graph
    assert len(kernels(source.file(graph))) < 0.7 * len(kernels(source.file(smooth))), "ReLU joins its layer"
    assert source.accuracy(source.file(graph)) > 0.4, "classes are still told apart"
    assert not smooth_activations(cut) and smooth_activations(network)


def worth(accuracy: float, speedup: float, size_bytes: int = 1000) -> Worth:
    return Worth(accuracy, 1 / speedup, speedup, size_bytes)


def row(group: str, ratio: float, accuracy: float, speedup: float) -> dict[str, object]:
    return {"group": group, "ratio": ratio, "int8": False, **asdict(worth(accuracy, speedup))}


def study_of(bench: Bench, path: Path, *worths: Worth, select: SelectParams = ANY) -> optuna.Study:
    study = open_study(PARAMS, ANY, bench, [], path)
    for value in worths:
        trial = ask(study, PARAMS)
        suggest(trial, PARAMS, bench)
        tell(study, trial, value, select)
    return study


def test_search_starts_with_uniform_ratios_when_it_is_new(bench: Bench, tmp_path: Path) -> None:
    study = open_study(PARAMS, ANY, bench, [], tmp_path / "log")
    designs = [suggest(ask(study, PARAMS), PARAMS, bench) for _ in range(6)]
    assert [set(design.ratios.values()) for design in designs] == [
        {r} for r in (0.0, 0.3, 0.4, 0.5, 0.6, 0.7)
    ]
    assert all(design.int8 and not design.float_layers for design in designs)


def test_uniform_ratios_are_tried_in_both_precisions_when_the_search_is_new(
    bench: Bench, tmp_path: Path
) -> None:
    study = open_study(PARAMS, ANY, bench, [], tmp_path / "log")
    designs = [suggest(ask(study, PARAMS), PARAMS, bench) for _ in range(11)]
    tried = {(*set(design.ratios.values()), design.int8) for design in designs}
    assert tried == {(0.0, True)} | {(r, int8) for r in (0.3, 0.4, 0.5, 0.6, 0.7) for int8 in (True, False)}


def test_search_starts_with_what_sensitivity_advises_when_it_was_measured(
    bench: Bench, tmp_path: Path
) -> None:
    first, second, *others = (group.name for group in bench.groups.prunable)
    costs = {(first, 0.5): 0.8, (second, 0.25): 0.02, (second, 0.5): 0.2, ("blocks.0", 1.0): 0.01}
    costs |= {(name, 0.5): 0.1 for name in others}
    rows = [row("", 0.0, 0.9, 1.0)]
    rows += [row(name, ratio, 0.9 - cost, 1 + ratio / 5) for (name, ratio), cost in costs.items()]
    study = open_study(PARAMS, ANY, bench, rows, tmp_path / "log")
    designs = [suggest(ask(study, PARAMS), PARAMS, bench) for _ in range(10)]
    assert not any(design.int8 for design in designs)
    advised = designs[6:]
    assert [design.ratios[first] for design in advised] == [0.0, 0.0, 0.0, 0.0]
    assert all(design.without == {"blocks.0"} for design in advised)
    assert [design.ratios[second] for design in advised] == sorted(d.ratios[second] for d in advised)
    assert advised[1].ratios[second] > 0


def test_search_goes_on_with_equal_designs_when_it_was_closed(bench: Bench, tmp_path: Path) -> None:
    values = [worth(0.9 - i / 50, 1 + i / 4) for i in range(12)]
    whole = study_of(bench, tmp_path / "whole", *values)
    study_of(bench, tmp_path / "cut", *values[:8])
    resumed = study_of(bench, tmp_path / "cut", *values[8:])
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]


def test_front_holds_what_nothing_beats_when_the_slowest_comes_first(bench: Bench, tmp_path: Path) -> None:
    study = study_of(bench, tmp_path / "log", worth(0.9, 1), worth(0.8, 3), worth(0.7, 2), worth(0.5, 4))
    assert [trial.number for trial in front(study, ANY)] == [0, 1, 3]
    assert worth_of(front(study, ANY)[1]) == worth(0.8, 3)


def test_front_is_of_sizes_when_the_objective_is_smallest(bench: Bench, tmp_path: Path) -> None:
    study = study_of(bench, tmp_path / "log", worth(0.9, 1, 900), worth(0.8, 3, 950), worth(0.7, 2, 100))
    assert [trial.number for trial in front(study, SelectParams(objective="smallest"))] == [0, 2]


def test_front_leaves_out_what_breaks_a_constraint_when_there_is_one(bench: Bench, tmp_path: Path) -> None:
    limits = SelectParams(max_size_kb=1.0, max_latency_ms=0.6)
    values = worth(0.9, 1, 900), worth(0.8, 3, 1100), worth(0.7, 2, 900)
    study = study_of(bench, tmp_path / "log", *values, select=limits)
    assert [trial.number for trial in front(study, limits)] == [2]


def test_search_has_stalled_when_the_hypervolume_has_not_grown_for_its_patience() -> None:
    assert not stalled([1.0, 1.1, 1.2, 1.3], 2)
    assert stalled([1.0, 1.3, 1.3, 1.3], 2)
    assert not stalled([1.0, 1.0], 2)


def test_volumes_never_shrink_when_designs_are_added(bench: Bench, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [worth(float(a), float(s)) for a, s in rng.uniform([0.1, 1], [0.9, 6], (12, 2))]
    grown = volumes(study_of(bench, tmp_path / "log", *values), ANY)
    assert (np.diff(grown) > -1e-9).all()
    assert grown[0] == pytest.approx(values[0].accuracy * values[0].speedup)


@pytest.mark.parametrize(
    ("speedups", "asked", "wanted"),
    [
        ({True: 1.02, False: 0.98}, "fastest", "smallest"),
        ({True: 0.9, False: 1.6}, "fastest", "fastest"),
        ({True: 3.0, False: 1.0}, "fastest", "fastest"),
        ({True: 3.0, False: 3.0}, "smallest", "smallest"),
    ],
)
def test_smallest_is_sought_when_nothing_that_leaves_makes_it_faster(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, speedups: dict[bool, float], asked: str, wanted: str
) -> None:
    monkeypatch.setattr(bench, "worth", lambda design: Worth(0.9, 1.0, speedups[design.int8], 1000))
    assert sought(PARAMS, SelectParams(objective=asked), bench).objective == wanted

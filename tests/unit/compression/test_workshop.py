"""Which designs of the front are trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.common.progress import Progress
from tasks.core.compression.designs import Bench, Worth
from tasks.core.compression.search import ask, front, open_study, suggest, tell
from tasks.core.compression.workshop import Workshop
from tasks.core.config.params_file import Pipeline
from tasks.core.runtime.graphs import divide_logits
from tests.networks import network_of, source_of, spec_of

pytestmark = pytest.mark.slow  # graphs are exported

ASKED = Pipeline.model_validate(
    {
        "ingest": {"source": "unused"},
        "prune": {"ratios": [0.5], "steps": 1, "epochs": 1, "batch_size": 64, "lr": 0.05},
        "quantize": {"schemes": ["fp32"], "calibration_images": 64},
        "press": {"trials": 6, "images": 100, "criteria": ["l2"], "sensitivity": []},
        "select": {"max_drop_points": 5.0},
    }
)


@pytest.fixture(scope="module")
def best(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> list[FrozenTrial]:
    """A front of uniform ratios, each with half as much speed again as the one before."""
    study = open_study(
        ASKED.press, ASKED.select, workshop.bench, [], tmp_path_factory.mktemp("study") / "log"
    )
    for number in range(6):
        trial = ask(study, ASKED.press)
        suggest(trial, ASKED.press, workshop.bench)
        speedup = 1.5**number
        tell(study, trial, Worth(0.9 - number / 50, 1 / speedup, speedup, 1000), ASKED.select)
    return front(study, ASKED.select)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    source = source_of("resnet_small")
    network = network_of("resnet_small")
    bench = Bench(network, source, ["l2"], 8, 200, 0)
    spec, augment = spec_of("resnet_small"), BatchAugment(source.policy)
    return Workshop(ASKED, augment, bench, spec, tmp_path_factory.mktemp("kept"), Progress("press", 100))


def test_designs_are_better_than_what_was_reached_when_they_are_trained(
    workshop: Workshop, best: list[FrozenTrial]
) -> None:
    reached = best[2].values[1]
    trained = workshop.bisect(best, 1, reached)
    assert [finetuned.trial.number for finetuned in trained] == [4], "the middle of the three that are faster"
    assert (trained[0].folder / "model.onnx").is_file()


def test_the_fastest_design_is_trained_when_none_is_better_than_what_was_reached(
    workshop: Workshop, best: list[FrozenTrial]
) -> None:
    trained = workshop.bisect(best, 3, 1000.0)
    assert [finetuned.trial.number for finetuned in trained] == [best[-1].number]


def test_design_is_delivered_as_it_is_cut_when_it_is_within_the_bar(
    workshop: Workshop, tmp_path: Path
) -> None:
    study = open_study(ASKED.press, ASKED.select, workshop.bench, [], tmp_path / "log")
    for _ in range(3):  # nothing leaves; then 30 and 40 % of every group
        trial = ask(study, ASKED.press)
        tell(study, trial, workshop.bench.worth(suggest(trial, ASKED.press, workshop.bench)), ASKED.select)
    best = front(study, ASKED.select)
    first, *others = workshop.candidates(best, 1, 0.0)
    assert (first.trained, first.within) == (False, True)
    assert (first.folder / "history.csv").read_text().count("\n") == 1, "it was not trained"
    assert all(other.trained and other.trial.values[1] > first.trial.values[1] for other in others)
    written = (first.folder / "model.onnx").stat().st_mtime_ns
    assert workshop.candidates(best, 1, 0.0)[0].folder == first.folder
    assert (first.folder / "model.onnx").stat().st_mtime_ns == written, "it is made once"
    assert all(made.trained for made in workshop.candidates(best, 1, first.trial.values[1]))


def test_nothing_is_reached_when_no_candidate_is_within_the_bar(workshop: Workshop, tmp_path: Path) -> None:
    dense, ruined = tmp_path / "dense.onnx", tmp_path / "ruined.onnx"
    dense.write_bytes(workshop.bench.dense)
    source = source_of("resnet_small")
    ruined.write_bytes(source.file(divide_logits(source.graph, -1.0)))
    assert workshop.reached([ruined]) == 0
    assert workshop.reached([dense, ruined]) == pytest.approx(1, abs=0.5)

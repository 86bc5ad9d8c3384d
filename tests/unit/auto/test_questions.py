"""Which network is chosen, by the outcomes of trials that a test makes up: no real ones are at the edges."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.core.auto import questions, refinements, rules
from tasks.core.auto.augmentations import Candidate
from tasks.core.auto.budget import Cost
from tasks.core.auto.draft import Draft
from tasks.core.auto.networks import LEARNED_LR, LR, PRETRAINED, RANDOM, Network
from tasks.core.auto.trials import Base, Outcome, Setting
from tasks.core.common.progress import Progress
from tasks.core.config.params_file import Asked, Pipeline
from tasks.core.data.inputs import ImageInput, TextInput

SMALL, MIDDLE, LARGE = (Network("convnet_small", width) for width in (16, 32, 64))
CHANCE = 0.12


def outcome(loss: float, scatter: float = 0.1) -> Outcome:
    """Of 400 images; one of loss 2.3 knows nothing."""
    noise_N = np.random.default_rng(int(1e6 * loss)).normal(0, scatter, 400)
    return Outcome(CHANCE if loss > 2 else 0.9, loss + noise_N - noise_N.mean(), 1, 400)


def draft_of(trials: Any, *auto: str) -> Draft:
    """On 1,000 colour images of 64 x 64."""
    content: dict[str, dict[str, Any]] = {
        "ingest": {"source": "x"},
        "train": {},
        "augment": {},
        "prune": {"ratios": [0.5]},
        "quantize": {"schemes": ["fp32"]},
    }
    asked = Asked(content, Pipeline.model_validate(content), frozenset(auto))
    return Draft(asked, trials, ImageInput((64, 64, 3), [0.5] * 3, [0.3] * 3), 1000, Progress("recipe", 9))


def of_texts(draft: Draft) -> Draft:
    """The same, but of 1,000 texts."""
    draft.given = TextInput(100, 30)
    return draft


def chosen(monkeypatch: pytest.MonkeyPatch, short: dict[int, float], longer: dict[int, float]) -> int:
    """The width that is chosen where the trials of each width end with these losses."""

    def told(losses: dict[int, float]) -> Any:
        return lambda setting: outcome(losses[setting.train.width])

    trials: Any = SimpleNamespace(
        chance=CHANCE,
        cost=lambda train: Cost(train.width**2 * 1000, 1000, 10),
        run=lambda setting, _: told(short)(setting),
        run_base=lambda base: told(longer)(base.setting),
    )
    monkeypatch.setattr(questions, "portfolio", lambda *_: [SMALL, MIDDLE, LARGE])
    draft = draft_of(trials, "train.arch", "train.width", "train.epochs")
    questions.choose_network(draft)
    return int(draft.sections["train"]["width"])


def test_larger_network_is_chosen_when_the_best_small_one_is_not_clearly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = {16: 0.5, 32: 0.6, 64: 0.9}
    assert chosen(monkeypatch, short, {16: 0.300, 32: 0.305}) == 32
    assert chosen(monkeypatch, short, {16: 0.3, 32: 0.4}) == 16
    assert chosen(monkeypatch, short, {16: 0.4, 32: 0.3}) == 32
    assert chosen(monkeypatch, {16: 0.5, 32: 0.6, 64: 0.4}, {}) == 64, "the best, and none is larger"


@pytest.mark.parametrize(("examples", "equal"), [(1000, "passes"), (1_000_000, "work")])
def test_networks_are_compared_after_equal_work_when_the_large_one_gets_few_passes(
    monkeypatch: pytest.MonkeyPatch, examples: int, equal: str
) -> None:
    work: dict[int, float] = {}

    def longer(base: Base) -> Outcome:
        work[base.setting.train.width] = base.work
        return outcome({16: 0.300, 32: 0.305}[base.setting.train.width])

    trials: Any = SimpleNamespace(
        chance=CHANCE,
        cost=lambda train: Cost(train.width**2 * 1000, 1000, 10),
        run=lambda setting, _: outcome({16: 0.5, 32: 0.6}[setting.train.width]),
        run_base=longer,
    )
    monkeypatch.setattr(questions, "portfolio", lambda *_: [SMALL, MIDDLE])
    draft = draft_of(trials, "train.arch", "train.width", "train.epochs")
    draft.images = examples
    questions.choose_network(draft)
    assert (work[16] == work[32]) == (equal == "work")
    width = draft.sections["train"]["width"]
    assert width == (32 if equal == "passes" else 16), (
        "a little behind, with more passes to come, or with less"
    )
    assert draft.tried[-1].question.startswith(f"network, as {'many' if equal == 'passes' else 'much'}")


@pytest.mark.parametrize(("reduced", "expected"), [(0.28, (32, 2)), (0.31, (16, 1))], ids=["better", "worse"])
def test_network_is_wider_on_smaller_images_when_that_is_better_after_as_much_work(
    monkeypatch: pytest.MonkeyPatch, reduced: float, expected: tuple[int, int]
) -> None:
    losses = {(16, 1): 0.30, (32, 1): 0.40, (32, 2): reduced}
    work: dict[tuple[int, int], float] = {}

    def longer(base: Base) -> Outcome:
        seen = (base.setting.train.width, base.setting.train.downscale)
        work[seen] = base.work
        return outcome(losses[seen])

    trials: Any = SimpleNamespace(
        chance=CHANCE,
        cost=lambda train: Cost(train.width**2 * 1000 // train.downscale**2, 1000, 10),
        run=lambda setting, _: outcome({16: 0.5, 32: 0.6}[setting.train.width]),
        run_base=longer,
    )
    monkeypatch.setattr(questions, "portfolio", lambda *_: [SMALL, MIDDLE])
    keys = ("train.arch", "train.width", "train.epochs", "train.downscale")
    draft = draft_of(trials, *keys)
    draft.choose("train.downscale", 1, "as they are")
    questions.choose_network(draft)
    train = draft.sections["train"]
    assert (train["width"], train["downscale"]) == expected
    assert work[32, 2] == work[16, 1]
    assert [row.variant for row in draft.tried if row.chosen][-1].startswith(
        f"convnet_small of width {expected[0]}"
    )
    by_hand = draft_of(trials, *keys[:3])
    by_hand.sections["train"]["downscale"] = 1
    questions.choose_network(by_hand)
    assert by_hand.sections["train"]["width"] == 16, "the side was set"


def test_network_that_is_slow_to_begin_gets_a_longer_trial_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = {16: 0.5, 32: 2.3, 64: 2.29}
    assert chosen(monkeypatch, short, {16: 0.4, 32: 0.2}) == 32, "the cheapest of those that know nothing"
    assert chosen(monkeypatch, short, {16: 0.4, 32: 2.3}) == 16, (
        "and it is dropped where it still knows nothing"
    )


@pytest.mark.parametrize(("macs", "downscale"), [(1e8, None), (2e9, 2)])
def test_learned_network_sees_reduced_images_when_the_budget_pays_for_no_larger_ones(
    monkeypatch: pytest.MonkeyPatch, macs: float, downscale: int | None
) -> None:
    learned = Network("timm/efficientnet_lite0", weights=PRETRAINED)
    monkeypatch.setattr(questions, "portfolio", lambda *_: [SMALL, learned])
    trials: Any = SimpleNamespace(
        cost=lambda train: Cost(
            int((macs if train.arch == learned.arch else 1e6) / train.downscale**2), 1000, 10
        )
    )
    draft = draft_of(trials, "train.arch", "train.width", "train.epochs", "train.downscale")
    assert questions.open_networks(draft) == [SMALL, replace(learned, downscale=downscale)]


def test_augmentation_is_used_when_it_is_better_or_costs_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"crop": 6, "flip_horizontal": True, "rotate": 15.0, "erase": 0.5}
    costs = {"crop": -0.05, "flip_horizontal": 0.004, "rotate": 0.03, "erase": 0.015}
    scatters = {"erase": 2.0}

    def run_on(_: Any, setting: Any, __: float) -> Outcome:
        used = [key for key in costs if getattr(setting.augment, key)]
        return outcome(
            0.5 + sum(costs[key] for key in used), max([0.1, *(scatters.get(key, 0.0) for key in used)])
        )

    trials: Any = SimpleNamespace(chance=CHANCE, cost=lambda _: Cost(1000, 1000, 10), run_on=run_on)
    offered = [Candidate(key, {key: value}) for key, value in values.items()]
    monkeypatch.setattr(refinements, "candidates", lambda _: offered)
    draft = draft_of(trials, "train.arch", *(f"augment.{key}" for key in costs))
    questions.begin(draft)
    refinements.choose_augmentations(draft)
    taken = [tried.name for tried in draft.augmentations if tried.used]
    assert taken == ["crop", "flip_horizontal"], (
        "erasing is within the noise, but costs three hundredths of the loss"
    )


def test_augmentation_of_texts_is_used_when_it_clearly_helps_and_costs_no_accuracy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = {"delete": -0.05, "swap": -0.002, "synonyms": -0.2, "insert": 0.004}

    def run(setting: Setting, _: float) -> Outcome:
        used = [key for key in losses if getattr(setting.augment, key)]
        got = outcome(0.5 + sum(losses[key] for key in used))
        return replace(got, accuracy=0.8) if "synonyms" in used else got

    trials: Any = SimpleNamespace(chance=CHANCE, cost=lambda _: Cost(1000, 1000, 10), run=run)
    offered = [Candidate(key, {key: 0.1}) for key in losses]
    monkeypatch.setattr(refinements, "candidates", lambda _: offered)
    draft = of_texts(draft_of(trials, *(f"augment.{key}" for key in losses)))
    draft.sections["train"]["arch"] = "text_bag"
    questions.begin(draft)
    refinements.choose_augmentations(draft)
    assert [tried.name for tried in draft.augmentations if tried.used] == ["delete"]


@pytest.mark.parametrize(("given", "expected"), [("images", 0.0), ("texts", rules.TEXT_TEACHER)])
def test_pruned_network_has_a_teacher_when_it_is_of_texts(given: str, expected: float) -> None:
    trials: Any = SimpleNamespace(cost=lambda _: Cost(1000, 1000, 10))
    draft = draft_of(trials, "prune.distill_weight")
    draft.sections["train"]["lr"] = LR
    rules.follow(of_texts(draft) if given == "texts" else draft)
    assert draft.sections["prune"]["distill_weight"] == expected


@pytest.mark.parametrize(
    ("weights", "auto", "expected"),
    [
        (RANDOM, True, LR),
        (
            PRETRAINED,
            True,
            LR,
        ),  # what learned weights are trained with is too little for what is left of them
        (PRETRAINED, False, 0.0005),
    ],
)
def test_recovery_begins_anew_when_the_dense_network_had_learned_weights(
    weights: str, auto: bool, expected: float
) -> None:
    trials: Any = SimpleNamespace(cost=lambda _: Cost(1000, 1000, 10))
    draft = draft_of(trials, "prune.lr", *(["train.lr"] if auto else []))
    draft.sections["start"] = {"weights": weights}
    draft.sections["train"]["lr"] = (LEARNED_LR if weights == PRETRAINED else LR) if auto else 0.0005
    rules.follow(draft)
    assert draft.sections["prune"]["lr"] == expected


@pytest.mark.parametrize(
    ("losses", "passes"), [({10: 0.8, 5: 0.7, 3: 0.75}, 5), ({10: 0.6, 5: 0.7, 3: 0.75}, 10), ({10: 0.7, 5: 0.7, 3: 0.7}, 3)]
)  # fmt: skip
def test_passes_over_texts_are_those_that_end_best_and_recovery_takes_all_when_they_are_open(
    losses: dict[int, float], passes: int
) -> None:
    works: list[float] = []

    def run(setting: Setting, work: float) -> Outcome:
        works.append(work)
        return outcome(losses[setting.train.epochs])

    trials: Any = SimpleNamespace(chance=CHANCE, cost=lambda _: Cost(1000, 1000, 10), run=run)
    draft = of_texts(draft_of(trials, "train.epochs", "prune.epochs"))
    expected = refinements.most_trials(draft)
    refinements.choose_passes(draft)
    assert len(draft.tried) == expected == 3 and len(set(works)) == 1
    rules.follow(draft)
    assert draft.sections["train"]["epochs"] == draft.setting().train.epochs == passes
    assert draft.sections["prune"]["epochs"] == 10
    assert [row.variant for row in draft.tried if row.chosen] == [f"{passes} of them"]


@pytest.mark.parametrize(("arch", "expected"), [("text_bag", 0), ("text_cnn", 10)])
def test_nothing_is_trained_after_a_cut_when_the_network_is_a_bag_of_words(arch: str, expected: int) -> None:
    trials: Any = SimpleNamespace(cost=lambda _: Cost(1000, 1000, 10))
    draft = of_texts(draft_of(trials, "prune.epochs"))
    draft.sections["train"]["arch"] = arch
    rules.follow(draft)
    assert draft.sections["prune"]["epochs"] == expected


def test_passes_are_not_asked_about_when_examples_are_images_or_no_others_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refinements.choose_passes(images := draft_of(None, "train.epochs"))
    monkeypatch.setitem(refinements.FEWER_PASSES, "normal", ())
    refinements.choose_passes(texts := of_texts(draft_of(None, "train.epochs")))
    for draft in (images, texts):
        assert not draft.tried and "train.epochs" not in draft.choices

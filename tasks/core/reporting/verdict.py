"""Whether to ship what was selected, in plain words: first of all, whether it knows anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import DENSE, Candidate
from tasks.core.reporting.page import percent, points

MEMORISED = 0.1  # accuracy on training examples above that on validation examples from which on it is named
UNLEARNED = 0.1  # share of the mistakes of naming the largest class, below which training has done all it can
CHANCE = (
    2.0  # standard errors: by how much guesses may be right more often than they would be on more examples
)
ROUNDING = 1e-6  # of an accuracy in single precision
QUICK = "This was a quick run: modelpress run --budget normal searches and trains some sixteen times longer."
_LISTED = 5  # classes


@dataclass(frozen=True)
class Verdict:
    """The answer to "shall we ship this?".

    Attributes:
        ships: whether.
        knows: whether it knows more than the best baseline, and every class better than by chance.
        sentence: why, or why not.
        advice: what to try, in a sentence each; nothing where it ships.
    """

    ships: bool
    knows: bool
    sentence: str
    advice: list[str]


def judge(
    selected: Candidate,
    dense: Candidate,
    passed: bool,
    reason: str,
    bar: Bar,
    unknown: Sequence[str],
    baselines: Mapping[str, Any],
    test_examples: int,
    train_accuracy: float,
    val_accuracy: float,
    quick: bool,
) -> Verdict:
    """What a user must hear before any figure of what was saved.

    Args:
        selected, dense: what was chosen, and the reference.
        passed, reason: whether a candidate within the bar was found, and the sentence that says so.
        bar: what a candidate may lose.
        unknown: classes that the selected model recognises no better than chance.
        baselines: metrics.json of the stage baselines.
        test_examples: how many there are.
        train_accuracy, val_accuracy: of the dense model, when its training ended.
        quick: whether the budget was the least, so that a longer run would do better.
    """
    ignorant = _ignorant(dense, "the dense model", baselines, test_examples)
    if not ignorant and selected.name != DENSE:
        ignorant = _ignorant(selected, selected.name, baselines, test_examples)
    if ignorant:
        advice = [QUICK] * quick + _advice(baselines, train_accuracy, val_accuracy, bar.examples)
        return Verdict(False, False, f"Do not ship this: {ignorant}", advice)
    if unknown:
        named = ", ".join(unknown[:_LISTED])
        more = f" and {len(unknown) - _LISTED} more classes" if len(unknown) > _LISTED else ""
        return Verdict(
            False,
            False,
            f"Do not ship this: {selected.name} recognises {named}{more} no better than chance.",
            ["More examples of these classes, or train.sampling: balanced; or leave the classes out."],
        )
    if selected.drop_low > bar.max_drop_points:
        return Verdict(
            False,
            True,
            f"Do not ship this: chosen by the validation examples, {selected.name} loses {points(selected.drop_points)} "
            f"points on the test examples (95 % interval {points(selected.drop_low)} to {points(selected.drop_high)}), "
            f"more than the bar of {points(bar.max_drop_points)}.",
            ["More validation examples, or fewer designs to choose from (press.trials, press.finetunes)."],
        )
    if not passed:
        return Verdict(False, True, f"Keep the dense model. {reason}", [])
    return Verdict(
        True,
        True,
        f"{selected.name} can be shipped: {percent(selected.accuracy)} of the test examples are right, "
        f"{points(selected.margin_points)} points more than by {_named(baselines['best'])} on {baselines['features']}."
        + ("" if bar.provable else f" {_unproven(bar)}")
        + (f" {QUICK}" if quick else ""),
        [],
    )


def rule(bar: Bar) -> str:
    """How it is decided that a candidate is within the bar, after "at most X points of accuracy"."""
    if bar.provable:
        return "on the validation examples, at the upper end of the 95 % interval"
    return f"on the {bar.examples} validation examples, too few for an interval to decide"


def _unproven(bar: Bar) -> str:
    return (
        f"That it is within the bar is not proven: {bar.examples} validation examples cannot tell a loss below "
        f"{points(bar.resolvable_points, 1)} points from none; the bar of {points(bar.max_drop_points)} needs "
        f"{bar.needed:,.0f}, so what was lost there decided, whatever its interval."
    )


def _ignorant(model: Candidate, called: str, baselines: Mapping[str, Any], test_examples: int) -> str:
    """Why a model is not known to be better than the best baseline; empty if it is."""
    best, accuracy = _named(baselines["best"]), percent(model.accuracy)
    simple = percent(baselines["accuracy"][baselines["best"]]["test"])
    if model.margin_points <= 0:
        return (
            f"{called} knows no more than {best} on {baselines['features']}, which takes seconds: {accuracy} of the test "
            f"examples against {simple}."
        )
    if model.margin_low <= 0:
        return (
            f"{test_examples} test examples cannot tell {called} ({accuracy}) from {best} on {baselines['features']} ({simple}): "
            f"{points(model.margin_points)} points more, with a 95 % interval of {points(model.margin_low)} to "
            f"{points(model.margin_high)}."
        )
    return ""


def _advice(
    baselines: Mapping[str, Any], train_accuracy: float, val_accuracy: float, val_examples: int
) -> list[str]:
    found = []
    accuracies = {name: accuracy["val"] for name, accuracy in baselines["accuracy"].items()}
    majority, best = accuracies["majority"], accuracies[baselines["best"]]
    chance = majority + CHANCE * math.sqrt(majority * (1 - majority) / val_examples) + ROUNDING
    if max(best, val_accuracy) <= chance:
        found.append(
            "Neither a baseline nor the network does clearly better than naming the largest class: do the labels follow "
            "from what they are of? Look at some examples of each class."
        )
    if train_accuracy - val_accuracy > MEMORISED:
        found.append(
            f"The dense model memorises: {percent(train_accuracy, 0)} of its training examples are right, and "
            f"{percent(val_accuracy, 0)} of the validation examples. More examples, stronger augmentation, a smaller or "
            "a pretrained network (start.weights)."
        )
    elif 1 - train_accuracy <= UNLEARNED * (1 - majority):
        found.append(
            f"The dense model has learned its examples as far as they go, and so has {_named(baselines['best'])}: more test "
            "examples, to tell the two apart, or no network for examples as easy as these."
        )
    else:
        found.append(
            f"The dense model has not learned its training examples ({percent(train_accuracy, 0)} are right): train "
            "longer (train.epochs), with more steps (a smaller train.batch_size), another learning rate (train.lr, "
            "or tune it) or optimizer (adamw), another network (train.arch)."
        )
    return found


def _named(baseline: str) -> str:
    """As it stands in a sentence."""
    return {"majority": "the majority class", "random forest": "a random forest"}.get(baseline, baseline)


def doubt(unsure: Mapping[str, float | None]) -> str:
    """When an answer is better withheld: `unsure` of a candidate in accuracy.json, as a sentence."""
    share, below, right = percent(unsure["precision"] or 0.0, 0), unsure["below"], unsure["right"]
    if below is None:
        return (
            f"From which probability on {share} of its answers are right is not known: the validation examples are too "
            "few to tell, or it is too often wrong."
        )
    if not below:
        return f"At least {share} of its answers are right, as far as the validation examples tell."
    found = f"of the test examples {percent(unsure['answered'] or 0.0, 0)} get an answer then"
    if right is not None:
        found += f", and {percent(right, 1)} of those answers are right"
    return (
        f"An answer less probable than {percent(below, 1)} is better withheld (modelpress predict says unsure), so "
        f"that at least {share} of the others are right by the validation examples; {found}."
    )

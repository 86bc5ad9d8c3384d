"""What trials answer once the network is chosen: which augmentations, which learning rate, of texts how many passes."""

from __future__ import annotations

from dataclasses import replace

from tasks.core.auto.augmentations import OFF, Candidate, candidates
from tasks.core.auto.draft import Draft, TriedAugmentation
from tasks.core.auto.networks import RANDOM
from tasks.core.auto.questions import base_of, open_downscales, open_networks, smallest
from tasks.core.auto.trials import Outcome, Setting

# Shares of the work of the dense training: a trial of each augmentation of images, of texts; of each learning rate.
AUGMENTATION, TEXT_AUGMENTATION, RATE = 0.05, 0.2, 0.16
OTHER_LRS = {"quick": (), "normal": (), "thorough": (1 / 3, 3)}  # and what is tried for it, in proportion
# Shares of the passes over texts that the budget pays for, which are tried beside all of them: words are soon known by heart. A
# bag of words was right about 83.1 % of the test texts of glosses (benchmarks/text_sets.py) after 3, 82.4 after 5, 81.0 after 10.
# After 2 it was 82.3, though its cross-entropy is least there: that grows before answers get worse.
FEWER_PASSES = {"quick": (), "normal": (0.5, 0.3), "thorough": (0.5, 0.3)}
QUICK = 4  # augmentations that a quick run tries
# By how much the model may be worse with an augmentation that is used: standard errors, and a share of the loss. A trial
# is too short for what it gives in the end, and sees nothing of what it gives on images of another origin.
EQUAL, ALIKE = 1.0, 0.02


def most_trials(draft: Draft) -> int:
    """How many trials the questions that are open take, at most."""
    sides, networks, augmentations = (
        len(options(draft)) for options in (open_downscales, open_networks, open_augmentations)
    )
    return (
        (sides if sides > 1 else 0)
        + networks
        + (2 if networks > 1 else 0)
        + (1 + augmentations if augmentations else 0)
        + (1 + len(_other_lrs(draft)) if _other_lrs(draft) else 0)
        + (1 + len(FEWER_PASSES[draft.budget]) if _open_passes(draft) else 0)
    )


def open_augmentations(draft: Draft) -> list[Candidate]:
    """Those of which no key was set by hand; of a quick run the first few."""
    free = {key for key in OFF if draft.is_auto(f"augment.{key}")}
    few = QUICK if draft.budget == "quick" else None
    return [candidate for candidate in candidates(draft.given)[:few] if set(candidate.values) <= free]


def choose_augmentations(draft: Draft) -> None:
    """Take each on top of those that were taken before it: of images unless it makes the model worse, of texts if it makes
    it better.

    Of images they are judged where they matter, on a network that has learned already: training goes on from it with and
    without each. At its beginning nearly all of them are in the way, also those that lead to the best model. The smallest
    network comes farthest for the same work. A network of texts knows what it has read by heart then, and what takes it away
    from that looks good: it learns from the beginning, with and without each, from a part of the texts.
    """
    asked, question = open_augmentations(draft), "augmentation"
    if not asked:
        return
    least = smallest(draft)
    weights = RANDOM if least else None
    alone = draft.setting(least, weights=weights)
    base = base_of(draft, alone) if draft.shape else None

    def trial(name: str, setting: Setting, compared: Outcome | None = None) -> Outcome:
        if base is None:
            return draft.trial(question, name, setting, TEXT_AUGMENTATION, compared)
        return draft.trial_on(base, question, name, setting, AUGMENTATION, compared)

    best = trial("none of them", alone)
    for candidate in asked:
        outcome = trial(candidate.name, draft.setting(least, candidate.values, weights), best)
        gain, error = outcome.gain_on(best)
        if draft.shape:
            taken = gain > -min(EQUAL * error, ALIKE * best.loss)
        else:  # it may make answers less sure, and no better
            taken = gain > error and outcome.accuracy >= best.accuracy
        reason = f"{candidate.name}: cross-entropy {-gain:+.3f} in a trial (standard error {error:.3f})"
        for key, value in candidate.values.items():
            draft.choose(f"augment.{key}", value if taken else OFF[key], reason)
        if taken:
            best = outcome
            draft.mark(question, candidate.name)
        values, gave = {**OFF, **candidate.values}, f"cross-entropy {-gain:+.3f} ± {error:.3f}"
        draft.augmentations.append(TriedAugmentation(candidate.name, values, taken, gave))


def _other_lrs(draft: Draft) -> list[float]:
    if not draft.is_auto("train.lr"):
        return []
    return [round(float(draft.sections["train"]["lr"]) * factor, 6) for factor in OTHER_LRS[draft.budget]]


def choose_lr(draft: Draft) -> None:
    """The usual one, unless another one is better."""
    question = "learning rate"
    others = _other_lrs(draft)
    if not others:
        return
    usual = best = float(draft.sections["train"]["lr"])
    compared = draft.trial(question, f"{usual:g}", draft.setting(), RATE)
    least = compared.loss
    for lr in others:
        outcome = draft.trial(question, f"{lr:g}", draft.setting({"lr": lr}), RATE, compared)
        gain, error = outcome.gain_on(compared)
        if gain > error and outcome.loss < least:
            best, least = lr, outcome.loss
    draft.mark(question, f"{best:g}")
    draft.choose("train.lr", best, f"the best of {1 + len(others)} in trials")


def _open_passes(draft: Draft) -> bool:
    return bool(draft.shape is None and draft.is_auto("train.epochs") and FEWER_PASSES[draft.budget])


def choose_passes(draft: Draft) -> None:
    """Of texts the number that is best, each tried as a whole training: most of it is over after one of them."""
    if not _open_passes(draft):
        return
    question, now = "passes", draft.setting()
    most = now.train.epochs
    tried: dict[int, Outcome] = {}
    lengths = {most, *(max(1, round(most * share)) for share in FEWER_PASSES[draft.budget])}
    for passes in sorted(lengths, reverse=True):
        setting = replace(now, train=now.train.model_copy(update={"epochs": passes}))
        tried[passes] = draft.trial(question, f"{passes} of them", setting, 1.0, tried.get(most))
    best = min(tried, key=lambda passes: (tried[passes].loss, passes))
    draft.mark(question, f"{best} of them")
    draft.choose(
        "train.epochs", best, f"the best of {len(tried)} lengths in trials; the budget pays for {most}"
    )

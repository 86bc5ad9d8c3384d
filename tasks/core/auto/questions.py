"""What trials answer, one question after another, each on top of the answers before it.

Which side of the images, which network, which augmentations, which learning rate. The trials of a question do the same
work each, a share of that of the dense training; what differs by less than the standard error counts as equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.core.auto.augmentations import IMAGES_OFF, TEXTS_OFF
from tasks.core.auto.budget import LARGEST_BATCH, Cost, most_passes
from tasks.core.auto.draft import Draft
from tasks.core.auto.networks import (
    OF_TEXTS,
    OWN,
    RANDOM,
    Network,
    affordable,
    downscales,
    portfolio,
)
from tasks.core.auto.trials import Base, Outcome, Setting

# Shares of the work of the dense training: a trial of each side; of each network; of what augmentations go on from.
SIDE, NETWORK, BASE = 0.08, 0.08, 0.3
LONGEST = 0.25  # of a trial of each network, where shorter ones leave all of them at chance
BETTER = 2.0  # standard errors, that a small network must be ahead of a large one after as many passes
# Passes that the dense training must have for a large network, or it is compared after equal work: with fewer a small one,
# which gets several times as many, ends ahead (on benchmarks/sets.py's fashion_tail 84.8 % of the test images for 27 passes
# of width 32, 81.6 for 8 of width 64, with somewhat other augmentations; fashion_noisy 90.0 for 20, 89.7 for 6, with equal ones).
ENOUGH = 20
VOCABULARY = {"quick": 20_000, "normal": 100_000, "thorough": 200_000}  # rows for words and pairs of words
WHY_DROPOUT = "of texts half of what convolutions find, of images none: augmentations do more"
TRAIN = {
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "warmup_epochs": 0.0,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "ema_decay": 0.0,
}


def begin(draft: Draft) -> None:
    """What trials start from."""
    for key, value in TRAIN.items():
        draft.choose(f"train.{key}", value, "AdamW and one cycle learn in few steps, whatever the data")
    known = OWN[0] if draft.is_auto("train.arch") else Network(draft.sections["train"]["arch"])
    draft.choose("train.lr", known.lr, "what trials start from")
    draft.choose("train.dropout", known.dropout, WHY_DROPOUT)
    draft.choose("start.weights", RANDOM, "what trials start from")
    if draft.shape:
        off, others = IMAGES_OFF, TEXTS_OFF
        draft.choose("train.downscale", 1, "the images as they are")
        draft.leave("train.vocabulary", VOCABULARY[draft.budget])
    else:
        off, others = TEXTS_OFF, IMAGES_OFF
        draft.choose("train.vocabulary", VOCABULARY[draft.budget], f"by the budget {draft.budget}")
        draft.leave("train.downscale", 1)
    for key, value in off.items():
        draft.choose(f"augment.{key}", value, "off: not tried")
    for key, value in others.items():
        draft.leave(f"augment.{key}", value)


def open_downscales(draft: Draft) -> list[int]:
    """Those to choose from: that the budget pays for, at least the strongest."""
    every = downscales(draft.shape) if draft.shape and draft.is_auto("train.downscale") else []
    return [f for f in every if _affordable(draft, {**smallest(draft), "downscale": f})] or every[-1:]


def smallest(draft: Draft) -> dict[str, Any]:
    """The network that learns most from little work, unless a person has chosen one. Of texts the one that was chosen: what
    augmentations do to bags of words says little of networks that see their order."""
    return OWN[0].values if draft.shape and draft.is_auto("train.arch") else {}


def _affordable(draft: Draft, train: Mapping[str, Any], learned: bool = False) -> bool:
    return affordable(draft.cost(draft.setting(train)), draft.work, learned)


def choose_downscale(draft: Draft) -> None:
    """Try the smallest network on images of each size."""
    factors = open_downscales(draft)
    if not factors or draft.shape is None:
        return
    question, height_width = "input side", draft.shape[:2]
    best, reason = factors[0], "the only side that suits the images and the budget"
    if len(factors) > 1:
        sides = {f: " x ".join(str(pixels // f) for pixels in height_width) for f in factors}
        least = smallest(draft)
        tried = {
            f: draft.trial(question, sides[f], draft.setting({**least, "downscale": f}, weights=RANDOM), SIDE)
            for f in factors
        }
        best = min(tried, key=lambda f: tried[f].loss)
        for f in factors:  # the smallest that is as good
            gain, error = tried[best].gain_on(tried[f])
            best = f if f > best and gain <= error else best
        draft.mark(question, sides[best])
        reason = f"{sides[best]} pixels: {tried[best].accuracy:.1%} in a trial"
    draft.choose("train.downscale", best, reason)


def _side(draft: Draft) -> int:
    """Pixels of the shorter side that networks see."""
    assert draft.shape is not None
    return min(draft.shape[:2]) // int(draft.sections["train"].get("downscale", 1))


def open_networks(draft: Draft) -> list[Network]:
    """Those to choose from: that suit the images, and that the budget pays for. One that has learned from larger images
    may see these reduced once more."""
    if not draft.is_auto("train.arch"):
        return []
    width = None if draft.is_auto("train.width") else draft.sections["train"].get("width")
    suitable = [n for n in _portfolio(draft) if width is None or n.width in (width, None)]
    found = [
        next((v for v in _variants(draft, n) if _affordable(draft, v.values, v.learned)), None)
        for n in suitable
    ]
    return [network for network in found if network] or suitable[:1]


def _variants(draft: Draft, network: Network) -> list[Network]:
    """A network on the images as they are seen by all, and on smaller ones where that makes sense."""
    reduced = 2 * int(draft.sections["train"].get("downscale", 1))
    if (
        draft.shape
        and network.learned
        and draft.is_auto("train.downscale")
        and reduced in downscales(draft.shape)
    ):
        return [network, replace(network, downscale=reduced)]
    return [network]


def _portfolio(draft: Draft) -> list[Network]:
    weights = (
        None if draft.is_auto("start.weights") else draft.sections.get("start", {}).get("weights", RANDOM)
    )
    return portfolio(_side(draft), draft.shape[2], weights) if draft.shape else OF_TEXTS


def _of(draft: Draft, network: Network) -> Setting:
    suits = {"lr": network.lr, "dropout": network.dropout}
    open_ones = {key: value for key, value in suits.items() if draft.is_auto(f"train.{key}")}
    return draft.setting({**network.values, **open_ones}, weights=network.weights)


def choose_network(draft: Draft) -> None:
    """Try all of them; then compare the best with the best of those that are larger."""
    networks = open_networks(draft)
    if not networks:
        return
    for network in _portfolio(draft):
        if network.arch not in {n.arch for n in networks if n.width == network.width}:
            draft.notes.append(f"{network} was not tried: the budget pays for too few steps")
    tried = _short_trials(draft, networks)

    def rank(network: Network) -> tuple[bool, float]:
        # One that knows nothing yet may only be slow to begin: of these the cheapest, which got most steps.
        learns = _learns(draft, tried[network])
        return not learns, tried[network].loss if learns else _cost(draft, network).macs

    best = min(networks, key=rank)
    larger = [n for n in networks if _cost(draft, n).macs > _cost(draft, best).macs]
    chosen, outcome = _compared(draft, best, min(larger, key=rank)) if larger else (best, tried[best])
    draft.mark(draft.tried[-1].question, str(chosen))
    chosen, outcome = _on_smaller_images(draft, chosen, outcome)
    reason = f"{outcome.accuracy:.1%} in a trial, chosen of {len(tried)} networks"
    draft.choose("train.arch", chosen.arch, reason)
    if chosen.downscale:
        draft.choose("train.downscale", chosen.downscale, reason)
    learned = " from learned weights" if chosen.learned else ""
    draft.choose("train.lr", chosen.lr, f"what suits {chosen.arch}{learned}")
    draft.choose("train.dropout", chosen.dropout, WHY_DROPOUT)
    draft.choose("start.weights", chosen.weights, reason)
    draft.choose("train.width", chosen.width or 32, reason if chosen.width else f"{chosen.arch} has its own")
    _warn_of_chance(draft, outcome)


def _compared(draft: Draft, best: Network, larger: Network) -> tuple[Network, Outcome]:
    """The larger one, unless the other is clearly better after as many passes over the examples; or, where the budget pays
    for few, better after as much work.

    After equal work, of which a large network gets few passes, it looks worse than it will be in the end; and what is
    pressed out of it is better than a small one that was trained as long (Li et al. 2020, arXiv:2002.11794).
    """
    base = base_of(draft, _of(draft, larger))
    least, most = (_cost(draft, network).of_step(LARGEST_BATCH) for network in (best, larger))
    enough = base.setting.train.epochs >= min(ENOUGH, most_passes(draft.given))
    question = f"network, as {'many passes' if enough else 'much work'}"
    large = draft.base_trial(question, str(larger), base)
    work = base.work * min(1.0, least / most) if enough else base.work
    small = draft.base_trial(question, str(best), Base(_of(draft, best), work), large)
    gain, error = small.gain_on(large)
    if gain > (BETTER * error if enough else 0.0) or not _learns(draft, large):
        return best, small
    return larger, large


def _on_smaller_images(draft: Draft, chosen: Network, outcome: Outcome) -> tuple[Network, Outcome]:
    """What was chosen, or the same network of twice the width on images of half the side, which costs as much, as long as
    that is better after as much work. The question for the side was asked of the narrowest network alone, with less work."""
    question = "side and width, after as much work"
    while (wider := _wider(draft, chosen)) is not None:
        draft.progress.expect(draft.progress.total + 2)
        base = base_of(draft, _of(draft, chosen))
        outcome = draft.base_trial(question, str(chosen), base)
        other = draft.base_trial(question, str(wider), Base(_of(draft, wider), base.work), outcome)
        better = other.gain_on(outcome)[0] > 0
        draft.mark(question, str(wider if better else chosen))
        if not better:
            break
        chosen, outcome = wider, other
    return chosen, outcome


def _wider(draft: Draft, network: Network) -> Network | None:
    """Of twice the width, on images of half the side; None where there is no such, or a person has chosen one of the two."""
    free = draft.shape is not None and all(map(draft.is_auto, ("train.downscale", "train.width")))
    if not free or network.learned or network.width is None or draft.shape is None:
        return None
    seen = network.downscale or int(draft.sections["train"].get("downscale", 1))
    wider = replace(network, width=2 * network.width, downscale=None)
    suits = 2 * seen in downscales(draft.shape) and wider in OWN
    return replace(wider, downscale=2 * seen) if suits else None


def _short_trials(draft: Draft, networks: list[Network]) -> dict[Network, Outcome]:
    """A trial of each; longer ones where all of them know nothing."""
    share = NETWORK
    tried = {n: draft.trial("network", str(n), _of(draft, n), share) for n in networks}
    while not any(_learns(draft, outcome) for outcome in tried.values()) and 2 * share <= LONGEST:
        share *= 2
        draft.least_share = share
        draft.progress.expect(draft.progress.total + len(networks))
        draft.notes.append(f"no network knew anything after {share / 2:g} of the budget: trials got longer")
        question = f"network, {share:g} of the budget"
        tried = {n: draft.trial(question, str(n), _of(draft, n), share) for n in networks}
    return tried


def _learns(draft: Draft, outcome: Outcome) -> bool:
    return outcome.accuracy > draft.trials.chance


def _cost(draft: Draft, network: Network) -> Cost:
    return draft.cost(_of(draft, network))


def base_of(draft: Draft, setting: Setting) -> Base:
    """What augmentations go on from."""
    return Base(setting, draft.work_of(setting, BASE))


def _warn_of_chance(draft: Draft, outcome: Outcome) -> None:
    """Say so where even the best network knows no more than which class is most frequent."""
    if not _learns(draft, outcome):
        draft.notes.append(
            f"the best network is right about {outcome.accuracy:.1%} of the examples in its trial, no more than "
            f"naming the most frequent class may be ({draft.trials.chance:.1%}): what was chosen by trials tells little"
        )

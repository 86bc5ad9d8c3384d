"""The techniques whose effect `modelpress ablate` measures, as changes to params.yaml, and the trainings that show it.

A technique is measured twice: alone, switched on in a bare configuration that has none of them, and in context, switched
off in the committed one. What works on a finished network is measured on that of the committed configuration.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.common.errors import BadInput

Sections = dict[str, dict[str, Any]]
Kind = Literal["alone", "in context", "on the network"]
BARE, COMMITTED = "bare", "committed"


@dataclass(frozen=True)
class Technique:
    """What switches it on and off, by section of params.yaml. A technique that is off has the values of `off`."""

    name: str
    on: Sections
    off: Sections


def _augment(name: str, off: Any = 0.0, **on: Any) -> Technique:
    return Technique(name, {"augment": on}, {"augment": {key: type(value)(off) for key, value in on.items()}})


def _train(name: str, on: Mapping[str, Any], off: Mapping[str, Any]) -> Technique:
    return Technique(name, {"train": dict(on)}, {"train": dict(off)})


CONSTANT = {"schedule": "constant"}
TECHNIQUES = (
    _augment("flip", flip_horizontal=True),
    _augment("crop", crop=2),
    _augment("rotation", rotate=10.0),
    _augment("scale", scale=0.1),
    _augment("translation", translate=0.1),
    _augment("colour", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05),
    _augment("random erasing", erase=0.25),
    _augment("MixUp", mixup=0.2),
    _augment("CutMix", cutmix=1.0),
    _augment("RandAugment", randaugment=2),
    _augment("TrivialAugment", trivialaugment=True),
    _train("L2", {"weight_decay": 5e-4}, {"weight_decay": 0.0}),
    _train("L1", {"l1": 1e-5}, {"l1": 0.0}),
    _train("dropout", {"dropout": 0.1}, {"dropout": 0.0}),
    _train("stochastic depth", {"stochastic_depth": 0.1}, {"stochastic_depth": None}),
    _train("batch norm", {"batch_norm": True}, {"batch_norm": False}),
    _train("label smoothing", {"label_smoothing": 0.1}, {"label_smoothing": 0.0}),
    _train("step schedule", {"schedule": "step"}, CONSTANT),
    _train("exponential schedule", {"schedule": "exponential"}, CONSTANT),
    _train("cosine schedule", {"schedule": "cosine"}, CONSTANT),
    _train("one-cycle schedule", {"schedule": "one_cycle"}, CONSTANT),
    _train("warm-up", {"warmup_epochs": 1.0}, {"warmup_epochs": 0.0}),
    _train("gradient clipping", {"clip_norm": 1.0}, {"clip_norm": 0.0}),
    _train("weight averaging", {"ema_decay": 0.99}, {"ema_decay": 0.0}),
    _train("AdamW", {"optimizer": "adamw", "lr": 2e-3}, {"optimizer": "sgd"}),
    _train("MobileNetV3", {"arch": "mobilenet_v3_small"}, {"arch": "resnet_small"}),
    _train("EfficientNet", {"arch": "efficientnet_b0"}, {"arch": "resnet_small"}),
)
# Without batch norm nothing else trains at these learning rates: a bare network keeps it.
KEPT_WHEN_BARE = ("batch norm",)
TUNING, TRANSFER = "tuning", "transfer learning"
PRUNING, DISTILLATION, QUANTIZATION = "pruning", "distillation", "quantization"
ON_NETWORK = (PRUNING, DISTILLATION, QUANTIZATION)
NAMES = (*(technique.name for technique in TECHNIQUES), TUNING, TRANSFER, *ON_NETWORK)


@dataclass(frozen=True)
class Variant:
    """One configuration to train: what it changes in the committed params, and what else is different."""

    name: str
    changes: Sections = field(default_factory=dict)
    tuned: bool = False
    started: bool = False
    network: str = ""  # of ON_NETWORK, or "pruning alone": what is done to a network that was trained before


@dataclass(frozen=True)
class Effect:
    """A technique's: accuracy of the variant that has it, less that of the one that has not."""

    technique: str
    kind: Kind
    having: str
    lacking: str


@dataclass(frozen=True)
class Plan:
    """The variants to train, those that others need first, and the effects that they show."""

    variants: list[Variant]
    effects: list[Effect]
    left_out: dict[str, str]  # techniques that cannot be measured here, and why


PRUNED, PRUNED_ALONE, QUANTIZED = "pruned", "pruned, not distilled", "quantized"


def plan(committed: Sections, tuned: Mapping[str, Any], asked: list[str]) -> Plan:
    """What to train to measure the techniques `asked` for, or all.

    Args:
        committed: params.yaml.
        tuned: what stage tune found, keys of train.

    Raises:
        BadInput: there is no technique of such a name.
    """
    wanted = _wanted(asked)
    bare: Sections = {}
    for technique in TECHNIQUES:
        if technique.name not in KEPT_WHEN_BARE:
            bare = merged(bare, technique.off)
    variants = {BARE: Variant(BARE, bare), COMMITTED: Variant(COMMITTED, tuned=bool(tuned), started=True)}
    effects, left_out = [], {}
    for technique in TECHNIQUES:
        if technique.name not in wanted:
            continue
        for effect, variant in _measured(technique, committed, bare, variants[COMMITTED]):
            variants[variant.name] = variant
            effects.append(effect)
    for name, available, reason, without in (
        (TUNING, bool(tuned), "tune.trials is 0", Variant(f"without {TUNING}", started=True)),
        (
            TRANSFER,
            committed["start"]["weights"] != "random",
            "start.weights is random",
            Variant(f"without {TRANSFER}", tuned=bool(tuned)),
        ),
    ):
        if name in wanted and available:
            variants[without.name] = without
            effects.append(Effect(name, "in context", COMMITTED, without.name))
        elif name in wanted:
            left_out[name] = reason
    for name, having, lacking in (
        (PRUNING, PRUNED, COMMITTED),
        (DISTILLATION, PRUNED, PRUNED_ALONE),
        (QUANTIZATION, QUANTIZED, COMMITTED),
    ):
        if name in wanted:
            variants |= {n: Variant(n, network=n) for n in (having, lacking) if n != COMMITTED}
            effects.append(Effect(name, "on the network", having, lacking))
    used = {name for effect in effects for name in (effect.having, effect.lacking)} | {COMMITTED}
    return Plan([variant for name, variant in variants.items() if name in used], effects, left_out)


def _measured(
    technique: Technique, committed: Sections, bare: Sections, whole: Variant
) -> Iterator[tuple[Effect, Variant]]:
    """Alone, and in context if the committed params have it. What they have it with is what is measured."""
    has = _differs(technique, committed)
    on = {s: {k: committed[s][k] for k in keys} for s, keys in technique.on.items()} if has else technique.on
    name = technique.name
    if name in KEPT_WHEN_BARE:
        without = Variant(f"bare without {name}", merged(bare, technique.off))
        yield Effect(name, "alone", BARE, without.name), without
    else:
        alone = Variant(f"bare with {name}", merged(bare, on))
        yield Effect(name, "alone", alone.name, BARE), alone
    if has:
        off = Variant(f"without {name}", technique.off, whole.tuned, whole.started)
        yield Effect(name, "in context", COMMITTED, off.name), off


def _differs(technique: Technique, committed: Sections) -> bool:
    """Whether the committed params have the technique. Of those that share a key, such as the schedules, they have
    the one whose value they name."""
    for section, values in technique.off.items():
        for key, value in values.items():
            own = committed[section][key]
            if own == value or (isinstance(value, str) and own != technique.on[section][key]):
                return False
    return True


def _wanted(asked: list[str]) -> set[str]:
    for name in asked:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(NAMES)}"
            raise BadInput(f"params.yaml: ablate.techniques: no technique is called {name}{hint}")
    return set(asked or NAMES)


def merged(base: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> Sections:
    """`base` with `changes`, key by key."""
    return {section: {**base.get(section, {}), **changes.get(section, {})} for section in {**base, **changes}}

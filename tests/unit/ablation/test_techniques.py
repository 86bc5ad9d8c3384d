"""What `modelpress ablate` trains, and the interval of what it finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.ablation.techniques import BARE, COMMITTED, NAMES, TECHNIQUES, merged, plan
from tasks.core.common.errors import BadInput
from tasks.core.config.compression_params import PruneParams, QuantizeParams
from tasks.core.config.params import AugmentParams, StartParams, TrainParams
from tasks.core.config.params_file import load_pipeline
from tasks.core.evaluation.stats import drop_interval, effect_interval

ROOT = Path(__file__).parents[3]
BEST = {"lr": 0.2}


def committed(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return merged(load_pipeline(ROOT / "params.yaml").model_dump(), sections)


def test_every_technique_is_measured_alone_and_those_in_use_in_context_when_all_are_asked_for() -> None:
    found = plan(committed(), BEST, [])
    alone = [effect.technique for effect in found.effects if effect.kind == "alone"]
    assert alone == [technique.name for technique in TECHNIQUES]
    in_context = {effect.technique for effect in found.effects if effect.kind == "in context"}
    assert in_context == {
        "flip", "crop", "L2", "batch norm", "label smoothing", "cosine schedule", "warm-up", "weight averaging",
        "tuning",
    }  # fmt: skip
    assert found.left_out == {"transfer learning": "start.weights is random"}
    names = [variant.name for variant in found.variants]
    assert len(set(names)) == len(names)
    assert {name for effect in found.effects for name in (effect.having, effect.lacking)} <= set(names)


@pytest.mark.parametrize(
    "sections", [{}, {"train": {"schedule": "step", "dropout": 0.3}}, {"augment": {"mixup": 0.4}}]
)
def test_every_variant_is_one_that_the_stages_take(sections: dict[str, dict[str, Any]]) -> None:
    whole = committed(**sections)
    variants = plan(whole, BEST, []).variants
    assert len(variants) > 2
    for variant in variants:
        changed = merged(whole, variant.changes)
        AugmentParams.model_validate(changed["augment"])
        TrainParams.model_validate(changed["train"])
        PruneParams.model_validate(changed["prune"])
        QuantizeParams.model_validate(changed["quantize"])
        StartParams.model_validate(changed["start"])


def test_variants_differ_in_the_technique_alone_when_it_is_switched() -> None:
    whole = committed()
    variants = {variant.name: merged(whole, variant.changes) for variant in plan(whole, {}, []).variants}

    def differing(one: str, other: str) -> set[str]:
        first, second = variants[one], variants[other]
        return {f"{s}.{k}" for s in first for k in first[s] if first[s][k] != second[s][k]}

    assert differing("bare with crop", BARE) == {"augment.crop"}
    assert differing("without L2", COMMITTED) == {"train.weight_decay"}
    assert differing("bare with cosine schedule", BARE) == {"train.schedule"}
    assert differing("bare without batch norm", BARE) == {"train.batch_norm"}
    bare = variants[BARE]
    assert (bare["train"]["schedule"], bare["train"]["weight_decay"], bare["augment"]["crop"]) == (
        "constant",
        0,
        0,
    )
    assert bare["train"]["lr"] == whole["train"]["lr"], "what is no technique stays"


def test_a_technique_has_the_committed_strength_when_the_params_use_it() -> None:
    whole = committed(augment={"crop": 4})
    variants = {variant.name: variant.changes for variant in plan(whole, {}, ["crop"]).variants}
    assert variants["bare with crop"]["augment"]["crop"] == 4


def test_only_what_is_needed_is_trained_when_few_are_asked_for() -> None:
    names = [variant.name for variant in plan(committed(), {}, ["distillation"]).variants]
    assert names == [COMMITTED, "pruned", "pruned, not distilled"], "what others begin with comes first"


def test_an_unknown_technique_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        BadInput, match=r"ablate\.techniques: no technique is called MixUpp: did you mean MixUp\?"
    ):
        plan(committed(), {}, ["MixUpp"])
    with pytest.raises(BadInput, match="there are flip, crop"):
        plan(committed(), {}, ["xyz"])
    assert len(set(NAMES)) == len(NAMES)


def right(shares: list[float], images: int = 4000, seed: int = 0) -> np.ndarray[Any, np.dtype[np.bool_]]:
    draws = np.random.default_rng(seed)
    return np.stack([draws.random(images) < share for share in shares])


def test_effect_interval_is_that_of_the_paired_bootstrap_when_there_is_one_seed() -> None:
    one, other = right([0.9]), right([0.92], seed=1)
    low, high = effect_interval(one, other, 4000, 0)
    lost_low, lost_high = drop_interval(one[0], other[0], 10_000, 0)
    assert (low, high) == pytest.approx((-lost_high, -lost_low), abs=0.1)


def test_effect_interval_is_wider_when_seeds_disagree() -> None:
    base = right([0.9, 0.9, 0.9])
    agree = effect_interval(base, right([0.92, 0.92, 0.92], seed=1), 2000, 0)
    disagree = effect_interval(base, right([0.88, 0.92, 0.96], seed=1), 2000, 0)
    assert disagree[1] - disagree[0] > 2 * (agree[1] - agree[0])
    assert agree[0] > 0 > disagree[0]


def test_effect_interval_is_nothing_when_nothing_differs() -> None:
    assert effect_interval(right([0.9]), right([0.9]), 500, 0) == (0, 0)

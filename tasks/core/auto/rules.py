"""What follows from the answers without a trial: the lengths that a budget pays for, and what goes with them."""

from __future__ import annotations

from tasks.core.auto.budget import Cost, Length
from tasks.core.auto.draft import Draft
from tasks.core.auto.networks import LR

# Of the loss in recovery, of texts. fortunes, half of everything gone: 0.9 points lost; 2.3 without a teacher.
TEXT_TEACHER = 0.9
QAT = 0.15  # of its work, int8_qat
QAT_LR = 0.01  # of SGD, for a batch of 128
AS_IN_TRAIN = ("optimizer", "weight_decay", "schedule", "label_smoothing", "ema_decay")  # in recovery
TUNING_IMAGES = 5000
TRIED_IMAGES, TRIED_TEXTS = 1000, 10_000  # by each design of press
# What else a budget pays for: repeats make a latency steadier, by SECTION.KEY.
SEARCHES: dict[str, dict[str, int]] = {
    "quick": {
        "evaluate.repeats": 200,
        "press.trials": 12,
        "press.patience": 12,
        "press.finetunes": 1,
        "tune.trials": 0,
    },
    "normal": {
        "evaluate.repeats": 1000,
        "press.trials": 40,
        "press.patience": 20,
        "press.finetunes": 3,
        "tune.trials": 0,
    },
    "thorough": {
        "evaluate.repeats": 4000,
        "press.trials": 60,
        "press.patience": 25,
        "press.finetunes": 4,
        "tune.trials": 12,
    },
}


def follow(draft: Draft) -> None:
    """Choose all of it."""
    now = draft.setting()
    cost, images = draft.cost(now), draft.images
    dense = draft.length(draft.work, cost)
    paid = f"{_words(cost, dense, images)}, which the budget {draft.budget} pays for"
    if "train.epochs" not in draft.choices:
        draft.choose("train.epochs", dense.epochs, paid)
    why = f"leaves {images // dense.batch_size} steps an epoch"
    draft.choose("train.batch_size", dense.batch_size, why)
    trained = draft.setting().train
    if draft.shape:
        draft.choose("prune.epochs", trained.epochs, "as many as in train")
    elif trained.arch == "text_bag":
        draft.choose(
            "prune.epochs",
            0,
            "what is cut from a bag of words is not learned again: training only made it worse",
        )
    else:
        draft.choose("prune.epochs", dense.epochs, f"{paid}: a teacher says more than labels")
    draft.choose("prune.steps", 1, "one cut, and all the training after it")
    draft.choose("prune.batch_size", trained.batch_size, "as in train")
    for key in AS_IN_TRAIN:
        draft.choose(
            f"prune.{key}", getattr(trained, key), "as in train: what taught the network teaches it again"
        )
    if now.pretrained and draft.is_auto("train.lr"):
        draft.choose(
            "prune.lr", LR, "as from random weights: what pruning leaves of learned ones is not enough"
        )
    else:
        draft.choose("prune.lr", trained.lr, "as in train")
    if draft.shape:
        why = "more epochs are worth more than a teacher, which takes as long"
        draft.choose("prune.distill_weight", 0.0, why)
    else:
        why = "what pruning leaves knows its texts by heart: it learns more from a teacher than from their labels"
        draft.choose("prune.distill_weight", TEXT_TEACHER, why)
    qat = draft.length(draft.work * QAT, cost)
    draft.choose("quantize.qat_epochs", qat.epochs, f"{QAT:g} of the work of the dense training")
    draft.choose("quantize.qat_batch_size", qat.batch_size, "as in train")
    draft.choose("quantize.qat_lr", _scaled(QAT_LR, qat), "in proportion to the batch")
    tried, why = (
        (TRIED_IMAGES, "or all") if draft.shape else (TRIED_TEXTS, "or all: a text takes microseconds")
    )
    draft.choose("press.images", tried, why)
    for key, value in SEARCHES[draft.budget].items():
        draft.choose(key, value, f"by the budget {draft.budget}")
    lr = now.train.lr
    space = {
        "lr": {"low": lr / 3, "high": lr * 3, "log": True},
        "weight_decay": {"low": 0.005, "high": 0.2, "log": True},
    }
    draft.choose("tune.space", space, "around what the trials chose")
    draft.choose("tune.epochs", max(1, dense.epochs // 3), "a third of the dense training")
    share = round(min(1.0, TUNING_IMAGES / images), 3)
    draft.choose("tune.train_fraction", share, f"{TUNING_IMAGES:,} examples, or all")


def _scaled(lr: float, trained: Length) -> float:
    return round(lr * trained.batch_size / 128, 6)


def _words(cost: Cost, trained: Length, images: int) -> str:
    steps = images // trained.batch_size * trained.epochs
    return f"{steps:,} steps that do the work of {cost.of_step(trained.batch_size) / 1e9:.2g} G MACs each"

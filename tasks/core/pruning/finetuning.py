"""Recovery: a network that lost channels or weights learns again, with the one it was made of as a teacher or without.

Distillation, Hinton, Vinyals, Dean 2015, arXiv:1503.02531. The learning rate is re-wound: a schedule of
its own from the peak down, Renda, Frankle, Carbin 2020, arXiv:2003.02389.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from tasks.core.augmentation.augment import Augment
from tasks.core.config.compression_params import PruneParams
from tasks.core.data.dataset import Dataset
from tasks.core.distributed.world import World
from tasks.core.training.loop import Epoch, Teacher, epochs
from tasks.core.training.optimizer import Recipe


def recover(
    student: nn.Module,
    dense: nn.Module,
    params: PruneParams,
    dataset: Dataset,
    augment: Augment,
    world: World,
    *,
    length: int,
    seed: int,
    checkpoint: Path | None = None,
) -> Iterator[Epoch]:
    """Train `student` in place for `length` epochs; rows as `loop.epochs` gives them.

    Args:
        dense: the teacher, if `params.distill_weight` is above 0.

    Raises:
        StageFailed: the loss is not finite.
    """
    recipe = Recipe(
        epochs=length,
        batch_size=params.batch_size,
        lr=params.lr,
        optimizer=params.optimizer,
        weight_decay=params.weight_decay,
        schedule=params.schedule,
        label_smoothing=params.label_smoothing,
        warmup_epochs=0.1,  # the weights are trained: only momentum has to build up
        ema_decay=params.ema_decay,
        seed=seed,
    )
    teacher = None
    if params.distill_weight:
        teacher = Teacher(dense.to(world.device), params.temperature, params.distill_weight)
    return epochs(
        student,
        recipe,
        dataset.train,
        dataset.val,
        augment,
        len(dataset.classes),
        world,
        teacher=teacher,
        checkpoint=checkpoint,
    )

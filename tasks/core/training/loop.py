"""epochs() and predict(): the one training loop, read from top to bottom.

Used for dense training, for each trial of tuning and for the recovery after pruning. The batch size
is global: every rank draws and augments the same global batch from the same seed and computes its
own slice, so that the number of ranks changes neither what is learned from nor in which order.
(Augmentation costs about a hundredth of a training step; that is what this simplicity costs.)

x_N: examples, such as uint8 images; x: what the network takes, such as normalised ones; N is the global batch, K the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.augmentation.augment import Augment
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.data.dataset import Split
from tasks.core.data.inputs import Input
from tasks.core.data.parts import parts
from tasks.core.distributed.world import World, check_divides
from tasks.core.training import checkpoints
from tasks.core.training.batches import TrainingBatches, to_device
from tasks.core.training.cuda_graphs import Recorded
from tasks.core.training.learner import Learner, learning
from tasks.core.training.memory import within_memory
from tasks.core.training.optimizer import Recipe


@dataclass(frozen=True)
class Teacher:
    """Distillation: the student learns the teacher's softened probabilities.

    Hinton, Vinyals, Dean 2015, arXiv:1503.02531. `weight` is the teacher's share of the loss.
    """

    model: nn.Module
    temperature: float
    weight: float


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


def epochs(
    model: nn.Module,
    recipe: Recipe,
    train: Split,
    val: Split,
    augment: Augment,
    num_classes: int,
    world: World,
    *,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place, an epoch whenever the next row is asked for; until then nothing happens.

    With `ema_decay` the averaged weights are what is validated and what `model` holds in the end.
    With `checkpoint`, the state after each epoch is kept there, and a run that finds one gives the
    rows before it at once and goes on from it to the same weights, bit for bit. The path must name
    what it belongs to (see `fingerprint`), so that nothing resumes from another run's state.

    Raises:
        BadInput: the batch does not divide among the ranks and parts, or is larger than the training set.
        StageFailed: training has diverged, or memory does not suffice; says in which step, or what fits.
    """
    check_divides(recipe.batch_size, world.size, recipe.accumulate)
    share = recipe.batch_size // (world.size * recipe.accumulate)
    # Looking waits for the device: a GPU would run dry.
    finite_every = 1 if world.device.type == "cpu" else 50
    steps = _steps(train, recipe)
    with learning(model, recipe, steps, world) as learner:
        stored = checkpoints.load(checkpoint, learner.parts, world) if checkpoint else []
        history = [Epoch(**row) for row in stored]
        criterion = _criterion(recipe, train, num_classes, world.device)
        batches = TrainingBatches(train, recipe, world.device)
        gradients: Callable[..., Sequence[Tensor]] = partial(
            _gradients, learner, criterion, recipe, teacher, world
        )
        if world.device.type == "cuda" and world.size == 1:
            gradients = Recorded(gradients, learner.model)
        yield from history

        while len(history) < recipe.epochs and not _stalled(history, recipe.early_stopping):
            epoch = len(history)
            learner.begin(epoch)
            torch.manual_seed(_seed(recipe.seed, epoch, world.rank + 1))  # dropout differs between ranks
            draws = torch.Generator(world.device).manual_seed(_seed(recipe.seed, epoch, 0))
            loss_sum = torch.zeros((), device=world.device)
            correct = torch.zeros((), device=world.device)
            augmented = partial(augment, generator=draws, num_classes=num_classes)
            for step, batch in enumerate(batches.epoch(epoch), 1):
                compute = partial(_step, gradients, augmented, *batch)
                attempt = partial(_try, model, batch[0], augment) if world.size == 1 else None
                loss, right = within_memory(compute, share, attempt)
                loss_sum += loss
                correct += right
                learner.step()
                if step % finite_every == 0:
                    learner.check_finite(epoch + 1, step)
            learner.settle(train, augment)
            row = _validated(epoch + 1, learner, loss_sum, correct, steps, recipe, val, augment, world)
            history.append(row)
            if checkpoint:
                checkpoints.save(checkpoint, learner.parts, [asdict(row) for row in history], world)
            yield row


def predict(model: nn.Module, split: Split, given: Input) -> Tensor:
    """Logits_NK (float32, on the CPU) of every example of `split`, in order."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    rows = parts(len(split), split.sizes_N)
    with torch.inference_mode():
        logits = [model(given.tensor(to_device(split.x_N[rows_n], device))).float().cpu() for rows_n in rows]
    model.train(training)
    return torch.cat(logits)[np.argsort(np.concatenate(rows))]


# ---- the parts of epochs


def _steps(train: Split, recipe: Recipe) -> int:
    """Steps an epoch; what is left of the images after the last whole batch is of another batch next time."""
    steps = len(train) // recipe.batch_size
    if not steps:
        raise BadInput(
            f"batch_size ({recipe.batch_size}) is larger than the training set ({len(train)}): lower it"
        )
    return steps


def _step(
    gradients: Callable[..., Sequence[Tensor]],
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x_N: Tensor,
    labels_N: Tensor,
    targets_NK: Tensor | None = None,
) -> Sequence[Tensor]:
    """All of a step that needs memory."""
    x, hard_NK = augment(x_N, labels_N)
    return gradients(x, hard_NK if targets_NK is None else targets_NK)


def _gradients(
    learner: Learner,
    criterion: Callable[[Tensor, Tensor], Tensor],
    recipe: Recipe,
    teacher: Teacher | None,
    world: World,
    x: Tensor,
    targets_NK: Tensor,
) -> tuple[Tensor, Tensor]:
    """Give the parameters their gradients on this rank's share of the global batch, computed in
    `recipe.accumulate` parts; the share's loss, and how many of it are right."""
    loss_sum, correct = torch.zeros((2,), device=world.device).unbind()
    last = recipe.accumulate - 1
    for part in range(recipe.accumulate):
        mine = slice(world.rank + part * world.size, None, world.size * recipe.accumulate)
        with (
            learner.unshared() if part < last else nullcontext(),
            torch.autocast(world.device.type, torch.bfloat16, enabled=world.device.type == "cuda"),
        ):
            logits_NK = learner.network(x[mine])
            loss = criterion(logits_NK, targets_NK[mine])
            if teacher is not None:
                loss = torch.lerp(loss, _distillation(logits_NK, x[mine], teacher), teacher.weight)
            loss = loss / recipe.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
        loss_sum = loss_sum + loss.detach()
        correct = correct + (logits_NK.argmax(1) == targets_NK[mine].argmax(1)).sum()
    return loss_sum, correct


def _try(model: nn.Module, x_N: Tensor, augment: Augment, count: int) -> None:
    """Compute the gradients of `count` examples as a step does, for nothing but the memory that it takes."""
    model(augment.input.tensor(x_N[:count])).sum().backward()
    model.zero_grad(set_to_none=True)


def _criterion(
    recipe: Recipe, train: Split, num_classes: int, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of logits_NK and targets_NK: cross-entropy, as `recipe` has it for classes that are not equally frequent.

    Class weights count rare classes as much as frequent ones. Logit adjustment (Menon et al. 2020, arXiv:2007.07314)
    adds the log of each class's share while the network learns, so that it need not learn which are frequent.
    """
    counts_K = np.bincount(train.labels_N, minlength=num_classes).clip(1).astype(np.float32)
    weight_K = to_device(len(train) / (num_classes * counts_K), device)
    offset_K = to_device(recipe.logit_adjustment * np.log(counts_K / counts_K.sum()), device)

    def loss(logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        if recipe.logit_adjustment:
            logits_NK = logits_NK + offset_K
        weighted = weight_K if recipe.class_weights == "balanced" else None
        return F.cross_entropy(logits_NK, targets_NK, weighted, label_smoothing=recipe.label_smoothing)

    return loss


def _distillation(logits_NK: Tensor, x: Tensor, teacher: Teacher) -> Tensor:
    with torch.inference_mode():
        taught_NK = F.log_softmax(teacher.model(x) / teacher.temperature, 1)
    learnt_NK = F.log_softmax(logits_NK / teacher.temperature, 1)
    divergence = F.kl_div(learnt_NK, taught_NK.clone(), reduction="batchmean", log_target=True)
    return divergence * teacher.temperature**2  # keeps the gradients' size whatever the temperature


def _validated(
    epoch: int,
    learner: Learner,
    loss_sum: Tensor,
    correct: Tensor,
    steps: int,
    recipe: Recipe,
    val: Split,
    augment: Augment,
    world: World,
) -> Epoch:
    """The epoch's row. Every rank computes the same one, so that all stop together."""
    sums = torch.stack([loss_sum / world.size, correct])
    if world.size > 1:
        torch.distributed.all_reduce(sums)
    train_loss = sums[0].item() / steps
    if not math.isfinite(train_loss):
        raise StageFailed(
            f"the loss is {train_loss} in epoch {epoch}: lower lr ({recipe.lr:g}), lengthen warmup_epochs or set clip_norm"
        )
    logits_NK = predict(learner.result, val, augment.input)
    labels_N = to_device(val.labels_N, logits_NK.device)
    return Epoch(
        epoch=epoch,
        lr=learner.lr,
        train_loss=train_loss,
        train_accuracy=sums[1].item() / (steps * recipe.batch_size),
        val_loss=F.cross_entropy(logits_NK, labels_N).item(),
        val_accuracy=(logits_NK.argmax(1) == labels_N).float().mean().item(),
    )


def _stalled(history: list[Epoch], patience: int) -> bool:
    """Whether the validation loss has not improved for `patience` epochs; 0 waits for ever."""
    losses = [row.val_loss for row in history]
    return bool(patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

"""fit() and predict(): the one training loop, read from top to bottom.

Used for dense training, for each trial of tuning and for the recovery after pruning. The batch size
is global: every rank draws and augments the same global batch from the same seed and computes its
own slice, so that the number of ranks changes neither what is learned from nor in which order.
(Augmentation costs about a hundredth of a training step; that is what this simplicity costs.)

x_NHWC: uint8 images; x_NCHW: normalised float32; N is the global batch, K the classes.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from tasks.core.data import Split
from tasks.core.dist import World, check_divides
from tasks.core.errors import BadInput, StageFailed
from tasks.core.transforms import BatchAugment, normalize

EVAL_BATCH = 500  # large enough for full speed, small enough for the caches


@dataclass(frozen=True)
class Recipe:
    """How to train; the fields are those of TrainParams that have the same name."""

    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    early_stopping: int = 0
    bn_sparsity: float = 0.0
    seed: int = 0


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


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: Split,
    val: Split,
    augment: BatchAugment,
    num_classes: int,
    world: World,
    *,
    teacher: Teacher | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    checkpoint: Path | None = None,
) -> list[Epoch]:
    """Train `model` in place and return one row an epoch.

    With `ema_decay` the averaged weights are what is validated and what `model` holds in the end.
    With `checkpoint`, the state after each epoch is kept there, and a run that finds one goes on
    from it to the same weights, bit for bit. The path must name what it belongs to (see
    `fingerprint`), so that nothing resumes from another run's state.

    Raises:
        BadInput: the batch does not divide among the ranks, or is larger than the training set.
        StageFailed: the loss is not finite.
    """
    check_divides(recipe.batch_size, world.size)
    steps = len(train.labels_N) // recipe.batch_size
    if steps == 0:
        raise BadInput(
            f"batch_size ({recipe.batch_size}) is larger than the training set ({len(train.labels_N)}): lower it"
        )
    model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(recipe, steps))
    ema = _average(model, recipe.ema_decay) if recipe.ema_decay else None
    parts = _Parts(model, optimizer, schedule, ema)
    history = parts.load(checkpoint, world.device)
    network = DistributedDataParallel(model) if world.size > 1 else model
    scales: list[Tensor] = [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    while len(history) < recipe.epochs and not _stalled(history, recipe.early_stopping):
        epoch = len(history)
        torch.manual_seed(_seed(recipe.seed, epoch, world.rank + 1))  # dropout differs between ranks
        draws = torch.Generator(world.device).manual_seed(_seed(recipe.seed, epoch, 0))
        network.train()
        loss_sum = torch.zeros((), device=world.device)
        correct = torch.zeros((), device=world.device)
        for x_NHWC, labels_N in _batches(train, recipe, epoch, world.device):
            x_NCHW, targets_NK = augment(x_NHWC, labels_N, draws, num_classes)
            mine = slice(world.rank, None, world.size)
            x_NCHW, targets_NK = x_NCHW[mine], targets_NK[mine]
            with torch.autocast(world.device.type, torch.bfloat16, enabled=world.device.type == "cuda"):
                logits_NK = network(x_NCHW)
                loss = F.cross_entropy(logits_NK, targets_NK, label_smoothing=recipe.label_smoothing)
                if teacher is not None:
                    loss = torch.lerp(loss, _distillation(logits_NK, x_NCHW, teacher), teacher.weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.bn_sparsity:
                _shrink(scales, recipe.bn_sparsity)
            optimizer.step()
            schedule.step()
            if ema is not None:
                ema.update_parameters(model)
            loss_sum += loss.detach()
            correct += (logits_NK.argmax(1) == targets_NK.argmax(1)).sum()
        row = _validated(
            epoch + 1, optimizer, loss_sum, correct, steps, recipe, ema or model, val, augment, world
        )
        history.append(row)
        if world.main:
            parts.save(checkpoint, history)
        on_epoch(row)

    if ema is not None:
        model.load_state_dict(ema.module.state_dict())
    return history


def predict(model: nn.Module, split: Split, mean: list[float], std: list[float]) -> Tensor:
    """Logits_NK (float32, on the CPU) of every image of `split`, in order."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.inference_mode():
        logits = [
            model(normalize(_tensor(split.images_NHWC[i : i + EVAL_BATCH], device), mean, std)).float().cpu()
            for i in range(0, len(split.labels_N), EVAL_BATCH)
        ]
    model.train(training)
    return torch.cat(logits)


# ---- the parts of fit


def _batches(
    train: Split, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's global batches; the last images that fill no batch wait for another epoch."""
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(train.labels_N))
    for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
        # Sorted within the batch: pages of the memory map are touched in order.
        rows = np.sort(order[start : start + recipe.batch_size])
        yield _tensor(train.images_NHWC[rows], device), _tensor(train.labels_N[rows], device)


def _tensor(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    return torch.tensor(np.asarray(array), device=device)


def _distillation(logits_NK: Tensor, x_NCHW: Tensor, teacher: Teacher) -> Tensor:
    with torch.inference_mode():
        taught_NK = F.log_softmax(teacher.model(x_NCHW) / teacher.temperature, 1)
    learnt_NK = F.log_softmax(logits_NK / teacher.temperature, 1)
    divergence = F.kl_div(learnt_NK, taught_NK.clone(), reduction="batchmean", log_target=True)
    return divergence * teacher.temperature**2  # keeps the gradients' size whatever the temperature


@torch.no_grad()
def _shrink(scales: list[Tensor], strength: float) -> None:
    """Add the subgradient of `strength` * sum |scale|: network slimming, Liu et al. 2017, arXiv:1708.06519."""
    torch._foreach_add_(
        [cast(Tensor, scale.grad) for scale in scales], torch._foreach_sign(scales), alpha=strength
    )


def _validated(
    epoch: int,
    optimizer: torch.optim.Optimizer,
    loss_sum: Tensor,
    correct: Tensor,
    steps: int,
    recipe: Recipe,
    model: nn.Module,
    val: Split,
    augment: BatchAugment,
    world: World,
) -> Epoch:
    """The epoch's row. Every rank computes the same one, so that all stop together."""
    sums = torch.stack([loss_sum / world.size, correct])
    if world.size > 1:
        torch.distributed.all_reduce(sums)
    train_loss = sums[0].item() / steps
    if not math.isfinite(train_loss):
        raise StageFailed(
            f"the loss is {train_loss} in epoch {epoch}: lower lr ({recipe.lr:g}) or lengthen warmup_epochs"
        )
    logits_NK = predict(model, val, augment.mean, augment.std)
    labels_N = _tensor(val.labels_N, logits_NK.device)
    if world.size > 1:  # batch norm's running statistics are each rank's own: rank 0 decides
        logits_NK = logits_NK.to(world.device)
        torch.distributed.broadcast(logits_NK, 0)
        logits_NK = logits_NK.cpu()
    return Epoch(
        epoch=epoch,
        lr=optimizer.param_groups[0]["lr"],
        train_loss=train_loss,
        train_accuracy=sums[1].item() / (steps * recipe.batch_size),
        val_loss=F.cross_entropy(logits_NK, labels_N).item(),
        val_accuracy=(logits_NK.argmax(1) == labels_N).float().mean().item(),
    )


def _stalled(history: list[Epoch], patience: int) -> bool:
    """Whether the validation loss has not improved for `patience` epochs; 0 waits for ever."""
    losses = [row.val_loss for row in history]
    return bool(patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay is for weights: norms and biases, which have one dimension, are left alone."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _schedule(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of lr at a step: linear warm-up, then the schedule down to (nearly) nothing."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(recipe.warmup_epochs * steps_per_epoch, total / 2)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1.0, total - warmup)
        match recipe.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            case "step":  # a tenth at half and at three quarters, as in He et al. 2015
                return 0.1 ** ((done >= 0.5) + (done >= 0.75))
            case "exponential":  # a thousandth at the end
                return float(0.001**done)
            case _:
                return 1.0

    return factor


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of weights and of batch norm's statistics.

    The first steps are forgotten faster (decay (1 + n) / (10 + n) after n of them), or a short run
    would end with an average of its beginnings.
    """

    @torch.no_grad()
    def update(averages: Any, currents: Any, seen: Any) -> None:
        weight = 1 - min(decay, (1 + int(seen)) / (10 + int(seen)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, weight)
        else:  # batch norm's counters
            torch._foreach_copy_(averages, currents)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@dataclass(frozen=True)
class _Parts:
    """What a checkpoint holds. Random draws need none: they follow from seed, epoch and rank."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    ema: AveragedModel | None

    def save(self, path: Path | None, history: list[Epoch]) -> None:
        """Replace the file at `path` (None: no checkpoints) in one step, so that it is always whole."""
        if path is None:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "ema": self.ema.state_dict() if self.ema else {},
                "history": [vars(row) for row in history],
            },
            buffer,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, path: Path | None, device: torch.device) -> list[Epoch]:
        """Go on from `path`: the epochs that were done, none where there is no file. No pickle is run."""
        if path is None or not path.exists():
            return []
        state = torch.load(path, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        return [Epoch(**row) for row in state["history"]]

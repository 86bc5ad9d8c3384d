"""What a training changes step by step: the network, its averaged weights, the optimizer and its schedule.

On several ranks each holds all of it and they average gradients (DDP), or each holds a share (FSDP2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from tasks.core.augmentation.augment import Augment
from tasks.core.common.errors import StageFailed
from tasks.core.data.dataset import Split
from tasks.core.distributed.sharding import WholeModel, WholeOptimizer, own, shard, whole
from tasks.core.distributed.world import World
from tasks.core.models.depth import depth_units, learning_units
from tasks.core.training.batchnorm import recalibrate, shared_statistics
from tasks.core.training.checkpoints import Stateful
from tasks.core.training.compiling import compiled
from tasks.core.training.optimizer import Recipe, lr_factor, make_optimizer, shrink_scales, soft_threshold
from tasks.core.training.pointwise import sound_gradients


@contextmanager
def learning(model: nn.Module, recipe: Recipe, steps: int, world: World) -> Iterator[Learner]:
    """Train `model` in the block, `steps` an epoch; in the end it holds what was learned, on its device.

    What is sharded is trained in a copy; `model` stays whole, on the CPU.
    """
    sharded = recipe.shard and world.size > 1
    if sharded:
        trained = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # all that FSDP2 takes
    else:
        trained = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Before the ranks share statistics: those of averaged weights are computed anew, by every rank from all images.
    ema = WeightAverage(trained, recipe.ema_decay) if recipe.ema_decay else None
    with sound_gradients(trained), shared_statistics(trained, world):
        learner = Learner(trained, ema, recipe, steps, world, sharded)
        yield learner
        trained.requires_grad_(True)
        if sharded:
            model.load_state_dict(WholeModel(learner.result).state_dict())
        elif ema is not None:
            model.load_state_dict(ema.module.state_dict())


class Learner:
    """The state of one training, and its step."""

    def __init__(
        self,
        model: nn.Module,
        ema: WeightAverage | None,
        recipe: Recipe,
        steps: int,
        world: World,
        sharded: bool,
    ) -> None:
        self.model, self.ema = model, ema
        self.recipe, self.world, self.sharded = recipe, world, sharded
        if sharded:
            shard(model, world)
            if ema is not None:
                shard(ema.module, world)
        self.optimizer = make_optimizer(model, recipe)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lr_factor(recipe, steps))
        self._connect()

    @property
    def result(self) -> nn.Module:
        """The network that is validated, and that is left in the end."""
        return self.model if self.ema is None else self.ema.module

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """All that a checkpoint has to hold."""
        parts: dict[str, Stateful] = {
            "model": WholeModel(self.model) if self.sharded else self.model,
            "optimizer": WholeOptimizer(self.model, self.optimizer) if self.sharded else self.optimizer,
            "schedule": self.schedule,
        }
        if self.ema is not None:
            parts["ema"] = WholeModel(self.ema) if self.sharded else self.ema
        return parts

    def begin(self, epoch: int) -> None:
        """Set which parameters learn in an epoch, counted from 0."""
        self.network.train()
        freeze, unfreeze = self.recipe.freeze_epochs, self.recipe.unfreeze_epochs
        if not freeze + unfreeze:
            return
        units = depth_units(self.model)
        frozen = len(units) - learning_units(len(units), epoch, freeze, unfreeze)
        before = [p.requires_grad for p in self.model.parameters()]
        for i, unit in enumerate(units):
            unit.requires_grad_(i >= frozen)
        if before != [p.requires_grad for p in self.model.parameters()]:
            self._connect()
            self.network.train()

    def step(self) -> None:
        """One step of all that learns along its gradients, with what the recipe asks for before and after it."""
        recipe = self.recipe
        if recipe.bn_sparsity:
            norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
            scales: list[Tensor] = [norm.weight for norm in norms if norm.weight.requires_grad]
            if scales:  # none while only the last layer learns
                shrink_scales(scales, recipe.bn_sparsity)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if recipe.l1:
            weights = [w for w in self.model.parameters() if w.ndim > 1 and w.requires_grad]
            soft_threshold(map(own, weights), recipe.l1 * self.lr)
        self.schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def unshared(self) -> AbstractContextManager[None]:
        """In the block a rank keeps its gradients to itself: parts of its share of the batch are still to come."""
        return self._ddp.no_sync() if self._ddp else nullcontext()

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the layers that learn fastest."""
        return float(self.optimizer.param_groups[0]["lr"])

    def check_finite(self, epoch: int, step: int) -> None:
        """Raises StageFailed when a step has led to weights that are not finite: those of the last layer, which always
        learns. After the update they are the same on all ranks, so that all of them stop here."""
        *_, last = self.model.parameters()
        if not torch.isfinite(whole(last)).all():
            raise StageFailed(
                f"training has diverged in step {step} of epoch {epoch}: lower lr ({self.recipe.lr:g}), lengthen "
                "warmup_epochs or set clip_norm"
            )

    @torch.no_grad()
    def settle(self, train: Split, augment: Augment) -> None:
        """Make a network of the averaged weights, if there are any: those that L1 has set to zero are zero, and the
        statistics of batch norm are of these weights."""
        if self.ema is None:
            return
        if self.recipe.l1:
            for averaged, weight in zip(self.ema.module.parameters(), self.model.parameters(), strict=True):
                if weight.ndim > 1:
                    own(averaged).mul_(own(weight) != 0)
        recalibrate(self.ema.module, train, augment.input)

    def _connect(self) -> None:
        """`network` is what computes gradients that are of all ranks; DDP has to know which parameters have any."""
        self._ddp: DistributedDataParallel | None = None
        if self.world.size > 1 and not self.sharded:
            size_MiB = sum(p.numel() * p.element_size() for p in self.model.parameters()) // 2**20 + 1
            self._ddp = DistributedDataParallel(
                self.model,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                # While all cores compute nothing can be sent beside it: all gradients go at once, in the end.
                bucket_cap_mb=size_MiB if self.world.on_one_cpu else None,
            )
        self.network: nn.Module = self._ddp or self.model
        if self.recipe.compile:
            self.network = compiled(self.network)


class WeightAverage(AveragedModel):
    """Exponential moving average of weights; statistics of batch norm are computed anew for it by whoever uses it.

    The first steps are forgotten faster (decay (1 + n) / (10 + n) after n of them), or a short run
    would end with an average of its beginnings.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Draw the averages to the parameters of `model`; buffers are left, which saves most of the time."""
        seen = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + seen) / (10 + seen)) if seen else 1.0
        averages, currents = ([own(p) for p in net.parameters()] for net in (self.module, model))
        torch._foreach_lerp_(averages, currents, share)
        self.n_averaged += 1

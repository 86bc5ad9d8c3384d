"""The parameters of stage tune: what is searched, by whom, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.core.config.params import AUTO, Count, NonNegative, Params, Positive, TrainParams

Value = str | int | float | bool


class FloatSpace(Params):
    """A real interval, searched on a log scale when `log`."""

    low: float
    """least value"""
    high: float
    """greatest value"""
    log: bool = False
    """search on a log scale"""

    @model_validator(mode="after")
    def _ordered(self) -> FloatSpace:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError("a log scale needs low > 0")
        return self

    def contains(self, value: Value) -> bool:
        """Whether a trial can have this value."""
        return isinstance(value, int | float) and self.low <= value <= self.high


class ChoiceSpace(Params):
    """One of a list of values."""

    choices: Annotated[list[Value], Field(min_length=1)]
    """the values"""

    def contains(self, value: Value) -> bool:
        """Whether a trial can have this value."""
        return value in self.choices


class TuneParams(Params):
    """The search over `space`; the keys of `space` are those of train."""

    trials: Annotated[int, Field(ge=0), AUTO] = 12
    """at most; 0: no search, train keeps its own values"""
    max_minutes: Positive | None = None
    """after so many no further trial begins; none: no limit"""
    epochs: Annotated[Count, AUTO] = 3
    """a trial's full length"""
    sampler: Literal["tpe", "gp", "cma_es", "nsga2", "quasi_random", "random", "grid", "manual"] = "tpe"
    """who proposes: Bayesian (tpe, gp), evolutionary (cma_es, nsga2), random (quasi_random: evenly spread), a grid of choices, or you"""
    pruner: Literal["hyperband", "successive_halving", "median", "wilcoxon", "none"] = "hyperband"
    """who ends trials early that do not look promising"""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """hyperband and successive_halving keep one trial in so many"""
    objectives: list[Literal["accuracy", "macs"]] = Field(default=["accuracy"], min_length=1)
    """macs: multiply-accumulates of the network as well, fewer are better; pruner none"""
    max_drop_points: NonNegative = 1.0
    """with macs: accuracy that the chosen trial may lack of the best one's"""
    manual: list[dict[str, Value]] = Field(default_factory=list)
    """trials of your own, tried first: keys of space; those not named keep train's value"""
    parallel: Annotated[int, Field(ge=1, le=256)] = 2
    """trials side by side, a thread each"""
    executor: Literal["local", "ray"] = "local"
    """ray: trials run on the cluster that RAY_ADDRESS names, else on this machine"""
    trial_cpus: Count = 1
    """of ray: CPUs, and threads, of a trial"""
    trial_gpus: NonNegative = 0.0
    """of ray: GPUs of a trial; a share is allowed"""
    startup_trials: Count = 5
    """random ones, before the sampler has something to learn from; nsga2: a generation"""
    train_fraction: Annotated[float, Field(gt=0, le=1), AUTO] = 0.2
    """of the images for training, but at least 1,000 or all there are"""
    space: Annotated[dict[str, FloatSpace | ChoiceSpace], AUTO] = Field(default_factory=dict)
    """what is searched: keys of train, each {low, high, log} or {choices}"""
    seed: int = 0
    """of the search"""

    @model_validator(mode="after")
    def _space_suits(self) -> TuneParams:
        unknown = sorted(set(self.space) - set(TrainParams.model_fields))
        if unknown:
            raise ValueError(f"space: {', '.join(unknown)} is not a key of train")
        if self.trials and not self.space:
            raise ValueError("space is empty: name what to search, or set trials to 0")
        ranges = [name for name, space in self.space.items() if isinstance(space, FloatSpace)]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"space: a grid needs choices, and {', '.join(ranges)} is a range")
        if self.sampler == "cma_es" and self.trials and len(ranges) < 2:
            raise ValueError("space: cma_es needs at least two ranges {low, high}")
        return self

    @model_validator(mode="after")
    def _manual_suits(self) -> TuneParams:
        for number, values in enumerate(self.manual):
            for name, value in values.items():
                if name not in self.space:
                    raise ValueError(f"manual.{number}: {name} is not in space")
                if not self.space[name].contains(value):
                    raise ValueError(f"manual.{number}.{name}: {value!r} is not in its space")
        if self.sampler == "manual" and self.trials and not self.manual:
            raise ValueError("manual is empty: list your trials, or choose another sampler")
        if len(self.manual) > self.trials > 0:
            raise ValueError(
                f"manual has {len(self.manual)} trials: trials ({self.trials}) must not be fewer"
            )
        return self

    @model_validator(mode="after")
    def _objectives_suit(self) -> TuneParams:
        if self.objectives not in (["accuracy"], ["accuracy", "macs"]):
            raise ValueError("objectives: must be [accuracy] or [accuracy, macs]")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError("pruner: must be none with two objectives: an unfinished trial has no rank")
        if len(self.objectives) > 1 and self.sampler == "cma_es":
            raise ValueError("sampler: cma_es knows one objective; tpe, gp and nsga2 know two")
        return self

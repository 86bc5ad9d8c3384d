"""The parameters of the stages that compress: prune, quantize and press."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tasks.core.config.params import (
    AUTO,
    Count,
    Fraction,
    NonNegative,
    Optimizer,
    Params,
    Positive,
    Ratio,
    Schedule,
)

Criterion = Literal["l1", "l2", "bn_scale", "taylor", "lamp", "random"]
Scheme = Literal["fp32", "fp16", "int8", "int8_mixed", "int8_qat", "int8_dynamic", "int8_weights"]


def check_ratio(value: object) -> float | str:
    """What prune does to a candidate: a share of the channels, or "sparse-SHARE", or "sparse-2of4".

    The words stand in the candidate's name and folder as they are.

    Raises:
        ValueError: it is none of them, or a share is not between 0 and 1.
    """
    if value == SPARSE_2OF4:
        return SPARSE_2OF4
    text = str(value)
    try:
        share = float(text.removeprefix(SPARSE))
    except ValueError:
        raise ValueError(
            "must be a share of the channels between 0 and 1, sparse-SHARE (0.8, say) or sparse-2of4"
        ) from None
    if not 0 < share < 1:
        raise ValueError("the share must be between 0 and 1")
    return text if text.startswith(SPARSE) else share


SPARSE = "sparse-"
SPARSE_2OF4 = "sparse-2of4"
PruneRatio = Annotated[Ratio | str, BeforeValidator(check_ratio)]


class PruneParams(Params):
    """Structured pruning or sparsity, and the recovery: training, with the dense model as a teacher."""

    ratios: Annotated[list[PruneRatio], Field(min_length=1)]
    """a candidate each: share of the channels removed; sparse-0.8, sparse-2of4: single weights set to zero"""
    criterion: Criterion = "l2"
    """which channels matter least; bn_scale judges layers without batch norm by l2"""
    scope: Literal["uniform", "global"] = "uniform"
    """uniform: the same ratio everywhere; global: where it matters least"""
    relu: bool = False
    """SiLU, hard swish, GELU and Mish become ReLU, which int8 computes for nothing; press finds out by itself"""
    steps: Annotated[Count, AUTO] = 3
    """iterations of prune and train"""
    round_to: Annotated[int, Field(ge=1, le=64)] = 8
    """channels are a multiple of it"""
    epochs: Annotated[int, Field(ge=0), AUTO] = 6
    """in all: one after each step, the rest after the last; 0: nothing is trained after a cut, of press neither"""
    batch_size: Annotated[int, Field(ge=2), AUTO] = 128
    """images a step"""
    optimizer: Annotated[Optimizer, AUTO] = "sgd"
    """as in train"""
    lr: Annotated[Positive, AUTO] = 0.05
    """at the peak"""
    weight_decay: Annotated[NonNegative, AUTO] = 5e-4
    """as in train"""
    schedule: Annotated[Schedule, AUTO] = "cosine"
    """as in train"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.0
    """as in train"""
    ema_decay: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.0
    """as in train"""
    temperature: Positive = 4.0
    """of the teacher's and the student's logits"""
    distill_weight: Annotated[Fraction, AUTO] = 0.9
    """share of the loss that is the teacher's; 0: no teacher, which saves its time"""
    augment_strength: Annotated[float, Field(ge=0, le=2)] = 1.0
    """as in train"""
    seed: int = 0
    """of order and augmentation"""

    @model_validator(mode="after")
    def _ratios_differ(self) -> PruneParams:
        if len(set(self.ratios)) != len(self.ratios):
            raise ValueError("ratios: the same ratio stands twice")
        if 0 < self.epochs < self.steps:
            raise ValueError(f"steps ({self.steps}) must not exceed epochs ({self.epochs})")
        return self


class QuantizeParams(Params):
    """ONNX export and, for int8, static quantization with a calibration set."""

    schemes: Annotated[list[Scheme], Field(min_length=1)]
    """a candidate each, of the dense and of every pruned model"""
    calibrator: Literal["minmax", "entropy", "percentile"] = "minmax"
    """how ranges of activations are chosen"""
    calibration_images: Annotated[int, Field(ge=16, le=10_000)] = 512
    """of those for training"""
    per_channel: bool = True
    """one scale a channel of the weights, not one a tensor"""
    weight_bits: Literal[7, 8] = 7
    """8 only for CPUs with integer dot products (VNNI, ARM): others overflow 16 bits"""
    mixed_loss_points: NonNegative = 0.1
    """int8_mixed: accuracy on validation images that int8 may cost; layers stay float until then"""
    qat_epochs: Annotated[Count, AUTO] = 1
    """int8_qat: passes over the images for training"""
    qat_batch_size: Annotated[int, Field(ge=2), AUTO] = 128
    """int8_qat: images a step"""
    qat_lr: Annotated[Positive, AUTO] = 0.01
    """int8_qat: at the peak"""
    qat_augment_strength: Annotated[float, Field(ge=0, le=2)] = 1.0
    """int8_qat: as in train"""
    seed: int = 0
    """of the choice of calibration images, and of int8_qat's order and augmentation"""

    @model_validator(mode="after")
    def _has_reference(self) -> QuantizeParams:
        if "fp32" not in self.schemes:
            raise ValueError("schemes: fp32 is missing; the others are compared with it")
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("schemes: the same scheme stands twice")
        return self


class PressParams(Params):
    """The search for a design: ratios of each group, criterion, precision; the best are fine-tuned as
    `prune` says, quantized as `quantize` says and become candidates press-1, press-2, …"""

    trials: Annotated[int, Field(ge=0), AUTO] = 60
    """designs that are tried untrained, at most; 0: no search"""
    patience: Annotated[Count, AUTO] = 25
    """trials without a larger hypervolume after which the search ends"""
    finetunes: Annotated[int, Field(ge=1, le=20), AUTO] = 2
    """designs that are trained: each halves the interval in which the fastest within the bar is sought"""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """Bayesian (arXiv:2304.11127), evolutionary (Deb et al. 2002) or random"""
    criteria: list[Criterion] = Field(default=["taylor", "l2"], min_length=1)
    """that a design may choose from; sensitivity is measured with the first"""
    max_ratio: Ratio = 0.8
    """the largest share of a group's channels that may leave"""
    sensitivity: list[Ratio] = Field(default=[0.25, 0.5, 0.75])
    """ratios at which each group alone is tried first; none: the search starts from uniform ratios alone"""
    images: Annotated[int, Field(ge=100), AUTO] = 1000
    """validation examples that a design is tried on"""
    seed: int = 0
    """of the search"""

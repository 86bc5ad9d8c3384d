"""A policy, ready to be applied to batches of whatever it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.texts import TextAugment

Augment = BatchAugment | TextAugment


def augment_of(policy: Mapping[str, Any], strength: float = 1.0) -> Augment:
    """What applies `policy`, as `resolve_policy` gives it."""
    return TextAugment(policy, strength) if "longest" in policy else BatchAugment(policy, strength)

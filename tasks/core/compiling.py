"""torch.compile, for training: what passes over the same numbers is one kernel, not many."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


def compiled(network: nn.Module) -> nn.Module:
    """`network` with the same parameters and buffers, compiled when it is first called, for one size of batch."""
    return cast(nn.Module, torch.compile(network, dynamic=False))

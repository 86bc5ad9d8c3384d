"""torch.compile, for training: what passes over the same numbers is one kernel, not many."""

from __future__ import annotations

import os
import shutil
from typing import cast

import torch
from torch import nn

from tasks.core.common.errors import BadInput


def compiled(network: nn.Module) -> nn.Module:
    """`network` with the same parameters and buffers, compiled when it is first called, for one size of batch.

    Raises:
        BadInput: there is no C++ compiler, which kernels of a CPU and the launchers of a GPU's are built with.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise BadInput("train.compile needs a C++ compiler: install g++, or set it to false")
    return cast(nn.Module, torch.compile(network, dynamic=False))

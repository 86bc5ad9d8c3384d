"""Whether the work that a budget is counted in is what time goes by: training steps of many networks, fitted.

    python benchmarks/work.py

Each step is timed with AdamW on random images; seconds are fitted, relative to each, by non-negative factors of
MACs, activations and operators. tasks/core/auto/budget.py holds what the factors are to that of MACs.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from common import write_result
from scipy.optimize import nnls
from torch.nn import functional as F

from tasks.core.auto.budget import BACKWARD, PER_ACTIVATION, PER_OPERATOR, cost_of
from tasks.core.data.inputs import ImageInput
from tasks.core.distributed.world import keep_memory, thread_count
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec

NETWORKS = [  # arch, width, side, channels
    ("resnet_small", 16, 28, 1),
    ("resnet_small", 40, 28, 1),
    ("resnet_small", 32, 64, 3),
    ("resnet_small", 64, 64, 3),
    ("resnet_small", 32, 8, 1),
    ("resnet_small", 32, 128, 3),
    ("convnet_small", 16, 28, 1),
    ("convnet_small", 64, 28, 3),
    ("convnet_small", 32, 64, 3),
    ("convnet_small", 32, 8, 1),
    ("mobilenet_v3_small", 16, 28, 1),
    ("mobilenet_v3_small", 16, 64, 3),
    ("mobilenet_v3_small", 16, 128, 3),
    ("efficientnet_b0", 16, 64, 3),
]
BATCHES, SECONDS, LEAST = (16, 64), 4.0, 3


def step_seconds(model: torch.nn.Module, side: int, channels: int, batch: int) -> float:
    """The median of as many steps as fit into SECONDS, after two."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x_NCHW = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
    labels_N = torch.randint(0, 10, (batch,))
    seconds: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(seconds) < LEAST + 2 or time.perf_counter() < until:
        start = time.perf_counter()
        F.cross_entropy(model(x_NCHW), labels_N).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def main() -> None:
    keep_memory()
    torch.set_num_threads(thread_count())
    rows, names = [], []
    for arch, width, side, channels in NETWORKS:
        model = build(Spec(arch, width, 0.0, (side, side, channels), 10)).train()
        cost = cost_of(model, ImageInput((side, side, channels), [0.5] * channels, [0.3] * channels))
        for batch in BATCHES:
            took = step_seconds(model, side, channels, batch)
            rows.append((BACKWARD * cost.macs * batch, cost.activations * batch, cost.operators, took))
            names.append(f"{arch} of width {width}, {side} pixels, batch {batch}")
            print(f"{names[-1]}: {took * 1e3:.1f} ms", flush=True)
    work, seconds = np.array(rows)[:, :3], np.array(rows)[:, 3]
    (per_mac, per_activation, per_operator), _ = nnls(work / seconds[:, None], np.ones(len(seconds)))
    used = work @ np.array([1.0, PER_ACTIVATION, PER_OPERATOR])
    told = used / seconds / np.median(used / seconds)
    payload = {
        "macs_that_an_activation_is": round(per_activation / per_mac, 1),
        "macs_that_an_operator_is": round(per_operator / per_mac),
        "giga_macs_a_second": round(1e-9 / per_mac, 1),
        "told_to_measured": {name: round(float(r), 2) for name, r in zip(names, told, strict=True)},
    }
    print(write_result("work", payload, ("torch",)))


if __name__ == "__main__":
    main()

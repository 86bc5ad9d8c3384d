"""CUDA graphs: the kernels of a training step, recorded once and then launched all at once.

A small network leaves a large GPU waiting for Python to launch its kernels, one by one: of the 6.3 ms that a step of
resnet_small at batch 128 took on an H100, the GPU computed for 0.9.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

WARM_UP = 3  # steps before one is recorded: by then libraries have chosen their kernels


class Recorded:
    """A function that gives the parameters of a model their gradients, launched as one graph from its fourth call on.

    Its kernels are the same, and so are its results. It is recorded anew when other parameters learn. What cannot be
    recorded, such as one that waits for the GPU to look at a result, goes on as it was; that is said.

    Args:
        compute: of tensors whose shapes never change; the parameters have no gradients when it is called.
    """

    def __init__(self, compute: Callable[..., Sequence[Tensor]], model: nn.Module) -> None:
        # A parameter gets its gradient on the stream on which it was first computed with, for as long as anything
        # holds that graph; tracing a network leaves some in reference cycles, and their stream can't be recorded.
        gc.collect()
        self._compute, self._parameters = compute, list(model.parameters())
        self._learning: list[bool] = []
        self._launched = 0
        self._recordable = True
        # What is computed before, beside the stream that all else is on, as recording will: one stream, since the
        # allocator keeps memory for each.
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        learning = [parameter.requires_grad for parameter in self._parameters]
        if learning != self._learning:
            self._learning, self._launched, self._graph = learning, 0, None
        if not self._recordable:
            return self._compute(*given)
        if self._launched < WARM_UP:
            self._launched += 1
            return self._launch(*given)
        if self._graph is None and not self._record(*given):
            return self._compute(*given)
        assert self._graph is not None
        for held, new in zip(self._given, given, strict=True):
            held.copy_(new)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._results

    def _launch(self, *given: Tensor) -> Sequence[Tensor]:
        """Compute as before a recording; the last time, find out whether there can be one."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = self._rehearse(*given) if self._launched == WARM_UP else self._compute(*given)
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def _rehearse(self, *given: Tensor) -> Sequence[Tensor]:
        """Compute, and find out whether it waits, before a recording fails in the middle for it."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                results = self._compute(*given)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
        if waits:
            self._give_up(f"{Path(waits[0].filename).name}:{waits[0].lineno} waits for the GPU")
        return results

    def _record(self, *given: Tensor) -> bool:
        """Whether there is a graph now; nothing is computed yet."""
        self._given = [tensor.clone() for tensor in given]
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        draws = generator.clone_state()
        try:
            # Other threads may go on with theirs, such as pinning memory for the next batch.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._results = self._compute(*self._given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            generator.graphsafe_set_state(draws)  # the failed recording still has the one before
            for parameter in self._parameters:
                parameter.grad = None
            self._give_up(str(error.__context__ or error).partition("\n")[0])
            return False
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._graph = graph
        return True

    def _give_up(self, reason: str) -> None:
        self._recordable = False
        print(f"steps are launched kernel by kernel, which is slower: {reason}", flush=True)

"""CUDA graphs: the kernels of a training step, recorded once and then launched all at once.

A small network leaves a large GPU waiting for Python to launch its kernels, one by one: of the 6.3 ms that a step of
resnet_small at batch 128 took on an H100, the GPU computed for 0.9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WARM_UP = 3  # steps before one is recorded: by then libraries have chosen their kernels


class Recorded:
    """A function that gives the parameters of a model their gradients, launched as one graph from its fourth call on.

    Its kernels are the same, and so are its results. It is recorded anew when other parameters learn. What cannot be
    recorded, because it looks at results while it computes, goes on as it was; that is said.

    Args:
        compute: of tensors whose shapes never change; the parameters have no gradients when it is called.
    """

    def __init__(self, compute: Callable[..., Sequence[Tensor]], model: nn.Module) -> None:
        self._compute, self._parameters = compute, list(model.parameters())
        self._learning: list[bool] = []
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._recordable = True

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        learning = [parameter.requires_grad for parameter in self._parameters]
        if learning != self._learning:
            self._learning, self._warm, self._graph = learning, 0, None
        if self._warm < WARM_UP or not self._recordable:
            self._warm += 1
            return self._aside(*given)
        if self._graph is None and not self._record(*given):
            return self._compute(*given)
        assert self._graph is not None
        for held, new in zip(self._given, given, strict=True):
            held.copy_(new)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._results

    def _aside(self, *given: Tensor) -> Sequence[Tensor]:
        """Compute on another stream, as recording will: what autograd and the libraries keep a stream for is ready."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results = self._compute(*given)
        torch.cuda.current_stream().wait_stream(stream)
        return results

    def _record(self, *given: Tensor) -> bool:
        """Whether it could be recorded; nothing is computed yet."""
        self._given = [tensor.clone() for tensor in given]
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may go on with theirs, such as pinning memory for the next batch.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._results = self._compute(*self._given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            for parameter in self._parameters:
                parameter.grad = None
            self._recordable = False
            said = str(error).partition("\n")[0]
            print(
                f"the training step cannot be recorded as a CUDA graph, and is slower for it: {said}",
                flush=True,
            )
            return False
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._graph = graph
        return True

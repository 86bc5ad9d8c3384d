"""Workers on a Ray cluster: the one that RAY_ADDRESS names, or else one on this machine for as long as it is needed.

Every node needs this package installed and sees the data under the same path.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import TrainParams
from tasks.core.config.tune_params import TuneParams
from tasks.core.tuning.trainer import Trainer
from tasks.core.tuning.trials import Answer, Task, Worker


class RayWorker:
    """An actor, with a trial's CPUs and GPUs."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, params: TrainParams) -> None:
        """As Worker's."""
        self._pending = self._actor.answer.remote(params)

    def answer(self) -> Answer:
        """As Worker's."""
        import ray

        try:
            answer: Answer = ray.get(self._pending)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[0]
            raise StageFailed(f"a worker has died ({said}); the study goes on at the next run") from None
        return answer

    def proceed(self) -> None:
        """As Worker's."""
        self._pending = self._actor.answer.remote(None)

    def stop(self) -> None:
        """As Worker's."""
        import ray

        ray.kill(self._actor)


@contextmanager
def ray_workers(count: int, task: Task, params: TuneParams) -> Iterator[list[Worker]]:
    """`count` actors, for the length of the block.

    Raises:
        BadInput: Ray is not installed, or the cluster has nowhere the CPUs and GPUs that a trial asks for.
        StageFailed: the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise BadInput("tune.executor: ray is not installed: pip install 'modelpress[ray]'") from None
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StageFailed(f"RAY_ADDRESS: {str(error).strip().splitlines()[0]}") from None
    try:
        need = {"CPU": float(params.trial_cpus), "GPU": params.trial_gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if not any(all(node.get(name, 0) >= amount for name, amount in need.items()) for node in nodes):
            most = ", ".join(f"{max(node.get(name, 0) for node in nodes):g} {name}s" for name in need)
            raise BadInput(
                f"tune.trial_cpus ({params.trial_cpus}), tune.trial_gpus ({params.trial_gpus:g}): no node of the "
                f"cluster has so many; the largest have {most}"
            )
        remote = ray.remote(num_cpus=params.trial_cpus, num_gpus=params.trial_gpus)(Trainer)
        somewhere = replace(task, data=task.data.absolute(), weights=task.weights.absolute())
        crew: list[Worker] = [RayWorker(remote.remote(somewhere, params.trial_cpus)) for _ in range(count)]
        yield crew
    finally:
        ray.shutdown()

"""What the machine does while a stage runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SAMPLING_S = 5


class Monitor:
    """MLflow's metrics of CPU, memory, disk, network and GPU, every SAMPLING_S and once at the end, handed to
    `record` as (name, value, number of the sample) instead of to a server."""

    def __init__(self, record: Callable[[list[tuple[str, float, int]]], None]) -> None:
        untyped: Any = SystemMetricsMonitor
        self._source, self._record, self._samples = untyped(""), record, 0
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Take the last sample and end."""
        self._finished.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._finished.wait(SAMPLING_S):
            self._sample()
        self._sample()

    def _sample(self) -> None:
        self._source.collect_metrics()
        metrics = self._source.aggregate_metrics()
        for monitor in self._source.monitors:
            monitor.clear_metrics()
        self._record([(f"system/{name}", value, self._samples) for name, value in metrics.items()])
        self._samples += 1

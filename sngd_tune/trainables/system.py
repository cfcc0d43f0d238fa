"""What the node of a trial does while it trains, under the names that MLflow's system metrics have.

MLflow's own monitor writes to a run from the process that it watches. A trial knows no MLflow, and its node may reach
none: what is seen travels with the epochs, into the ledger and from there to MLflow.
"""

import functools
import os
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import psutil

from sngd_tune.gpu import gpu_gauges
from sngd_tune.records.metrics import EpochMetrics

__all__ = ["Monitored", "NodeMonitor", "Trained", "joint_system"]

#: Seconds between two looks at the node, each of which takes 0.1 ms (measured without a GPU).
SAMPLE_SECONDS = 2.0

_MEGA = 1e6
#: Counted from the training's start on; all else is a gauge, of which an epoch has the mean.
_COUNTED = ("network_receive_megabytes", "network_transmit_megabytes")


class Trained(Protocol):
    """What a trial asks of its training, wherever that runs: in this process, or in several others."""

    @property
    def finished(self) -> bool:
        """As `Training.finished`, and so on below."""

    def epoch(self) -> EpochMetrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class NodeMonitor:
    """Looks at the node every few seconds, in a thread of its own that lives as long as the process.

    Args:
        seconds: between two looks, > 0.
    """

    def __init__(self, seconds: float = SAMPLE_SECONDS) -> None:
        self._seconds = seconds
        self._gpus = gpu_gauges()
        self._seen = threading.Lock()
        self.begin()
        threading.Thread(target=self._run, name="sngd-tune-node", daemon=True).start()

    def begin(self) -> None:
        """A training begins in this process; what was seen before belongs to none."""
        with self._seen:
            self._samples: list[dict[str, float]] = []
            self._network = _network()
        psutil.cpu_percent()  # the next call of this thread says how busy the CPUs were since this one

    def take(self, *, last: bool) -> dict[str, float]:
        """What was seen since it was asked before: means, but for what is counted. Empty where there was no look.

        Args:
            last: whether the training is over: one that was too short for a look is looked at now.
        """
        with self._seen:
            samples, self._samples = self._samples, []
        if not samples and last:
            samples = [self._sample()]
        names = dict.fromkeys(name for sample in samples for name in sample)
        seen = {name: [sample[name] for sample in samples if name in sample] for name in names}
        return {name: values[-1] if name in _COUNTED else statistics.fmean(values) for name, values in seen.items()}

    def _run(self) -> None:
        psutil.cpu_percent()
        while True:
            time.sleep(self._seconds)
            sample = self._sample()
            with self._seen:
                self._samples.append(sample)

    def _sample(self) -> dict[str, float]:
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(os.sep), _network()
        received, sent = (now - then for now, then in zip(network, self._network, strict=True))
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGA,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGA,
            "disk_available_megabytes": disk.free / _MEGA,
            **dict(zip(_COUNTED, (received / _MEGA, sent / _MEGA), strict=True)),
            **self._gpus(),
        }


class Monitored:
    """A training in this process, with what its node did meanwhile in the metrics of its epochs."""

    def __init__(self, training: Trained) -> None:
        self._training = training
        self._monitor = _monitor()
        self._monitor.begin()

    @property
    def finished(self) -> bool:
        return self._training.finished

    def epoch(self) -> EpochMetrics:
        """The next one."""
        metrics = self._training.epoch()
        return replace(metrics, system=self._monitor.take(last=self.finished or not metrics.finite))

    def state_dict(self) -> dict[str, Any]:
        """As the training's own."""
        return self._training.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As the training's own."""
        self._training.load_state_dict(state)


def joint_system(nodes: Sequence[str], seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What the nodes of a trial's ranks did; where there are several, names say which, as MLflow's do.

    Args:
        nodes: of the ranks.
        seen: by the ranks, each of which sees the GPUs that it may use.

    >>> joint_system(["a", "a"], [{"gpu_0_utilization_percentage": 9.0}, {"gpu_1_utilization_percentage": 7.0}])
    {'gpu_0_utilization_percentage': 9.0, 'gpu_1_utilization_percentage': 7.0}
    >>> joint_system(["a", "b"], [{"cpu_utilization_percentage": 90.0}, {"cpu_utilization_percentage": 70.0}])
    {'node_0/cpu_utilization_percentage': 90.0, 'node_1/cpu_utilization_percentage': 70.0}
    """
    by_node: dict[str, dict[str, float]] = {}
    for node, values in zip(nodes, seen, strict=True):
        by_node.setdefault(node, {}).update(values)
    if len(by_node) == 1:
        return by_node[nodes[0]]
    return {f"node_{i}/{name}": each for i, values in enumerate(by_node.values()) for name, each in values.items()}


@functools.cache
def _monitor() -> NodeMonitor:
    """The process's own: a thread for each trial would have to be ended with it."""
    return NodeMonitor()


def _network() -> tuple[int, int]:
    """Bytes received and sent since the node was started; none where it has no network."""
    found = psutil.net_io_counters()
    return (found.bytes_recv, found.bytes_sent) if found is not None else (0, 0)

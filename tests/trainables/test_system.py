"""What a trial sees of its node."""

import time

import torch
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from sngd_tune.records.trial import TrialConfig
from sngd_tune.tracking.entries import MARK, epoch_metrics
from sngd_tune.trainables.system import Monitored, NodeMonitor
from sngd_tune.training import Training
from sngd_tune.workloads.registry import find_workload
from tests.studies import MOONS


def test_the_names_are_those_of_mlflows_own_monitors() -> None:
    names: set[str] = set()
    for monitor in (CPUMonitor(), DiskMonitor(), NetworkMonitor()):
        monitor.collect_metrics()
        names |= set(monitor.metrics)
    seen = NodeMonitor().take(last=True)
    assert {name for name in seen if not name.startswith("gpu_")} == names


def test_a_long_training_has_means_of_what_was_seen_meanwhile_and_nothing_twice() -> None:
    monitor = NodeMonitor(seconds=0.05)
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        sum(range(10_000))
    seen = monitor.take(last=False)
    assert 0 < seen["cpu_utilization_percentage"] <= 100
    assert 0 < seen["system_memory_usage_percentage"] < 100
    monitor.begin()
    assert monitor.take(last=False) == {}


def test_a_short_training_is_looked_at_when_it_ends() -> None:
    trial = TrialConfig.from_flat({"optimizer": "sgd"}, workload=MOONS, epochs=2, seed=0)
    workload = find_workload(MOONS)
    training = Monitored(Training(trial, workload, workload.load(None), torch.device("cpu")))
    training.epoch()
    last = training.epoch()
    assert training.finished
    names = list(epoch_metrics(last))
    assert "system/cpu_utilization_percentage" in names
    assert names[-1] == MARK

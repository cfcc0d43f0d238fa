"""Resources: what fits is counted by node, as Ray gives it out."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from sngd_tune.cluster.nodes import Node, alive_nodes, on_each
from sngd_tune.cluster.resources import bundle, check_resources, slots_on, trial_slots, wait_for_resources
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import ResourceConfig


def node(cpus: float, gpus: float = 0, gigabytes: float = 8) -> Node:
    return Node(id="", address="", cpus=cpus, gpus=gpus, memory=gigabytes * 1e9)


SMALL, LARGE, GPUS = [node(2), node(2)], [node(4)], [node(16, gpus=2), node(16, gpus=1)]


@pytest.mark.parametrize(
    ("nodes", "resources", "slots"),
    [
        (SMALL, ResourceConfig(cpus=1), 4),
        (SMALL, ResourceConfig(cpus=1.5), 2),  # the halves that are left over lie on two nodes
        (LARGE, ResourceConfig(cpus=1.5), 2),
        (SMALL, ResourceConfig(cpus=3), 0),
        (LARGE, ResourceConfig(cpus=0.1), 40),
        (SMALL, ResourceConfig(cpus=1, workers=3), 1),  # the workers of a trial may lie on two nodes
        (SMALL, ResourceConfig(cpus=1, workers=5), 0),
        (SMALL, ResourceConfig(cpus=0.5, memory_gb=3), 4),
        (GPUS, ResourceConfig(cpus=1, gpus=1), 3),
        (GPUS, ResourceConfig(cpus=1, gpus=0.4), 6),  # a fraction lies on one GPU
        (GPUS, ResourceConfig(cpus=1, gpus=0.3333), 9),
        (GPUS, ResourceConfig(cpus=1, gpus=0.6), 3),
        (GPUS, ResourceConfig(cpus=1, gpus=2), 1),
        (GPUS, ResourceConfig(cpus=8, gpus=0.25), 4),
        ([node(0), *SMALL], ResourceConfig(), 4),
        ([], ResourceConfig(), 0),
    ],
)
def test_trials_are_counted_node_by_node(nodes: Sequence[Node], resources: ResourceConfig, slots: int) -> None:
    assert slots_on(nodes, resources) == slots


@pytest.mark.parametrize("gpus", [1.5, 2.25])
def test_more_than_one_gpu_is_a_whole_number_of_them(gpus: float) -> None:
    with pytest.raises(ValidationError, match="a fraction of one GPU"):
        ResourceConfig(gpus=gpus)


def test_a_bundle_holds_what_a_worker_reserves_and_no_zeros() -> None:
    assert bundle(ResourceConfig(cpus=2, gpus=0.5, memory_gb=1.5)) == {"CPU": 2, "GPU": 0.5, "memory": 1.5e9}
    assert bundle(ResourceConfig()) == {"CPU": 1.0}
    with pytest.raises(ConfigurationError, match="name numbers"):
        bundle(ResourceConfig(gpus="auto"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("cpus", "slots"), [(0.25, 8), (0.5, 4), (0.7, 2), (1.0, 2), (1.5, 1), (2.0, 1)])
def test_slots_are_whole_trials(cpus: float, slots: int) -> None:
    resources = ResourceConfig(cpus=cpus)
    check_resources(resources)
    assert trial_slots(resources) == slots


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (ResourceConfig(cpus=3), r"search\.resources\.cpus=3: no node has more than 2 CPUs; lower it"),
        (ResourceConfig(gpus=0.5), r"search\.resources\.gpus=0\.5: no node has more than 0 GPUs"),
        (ResourceConfig(memory_gb=1e6), r"search\.resources\.memory_gb=1e\+06: no node has more than \S+ GB"),
        (ResourceConfig(workers=3), r"search\.resources\.workers=3, each with cpus=1: the cluster has room for 2"),
    ],
)
def test_what_the_cluster_can_never_run_is_refused(resources: ResourceConfig, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_resources(resources)


@pytest.mark.usefixtures("ray_session")
def test_waiting_ends_with_the_refusal_and_says_meanwhile_what_is_missing() -> None:
    said: list[str] = []
    with pytest.raises(ConfigurationError, match=r"cpus=3: no node has more than 2"):
        wait_for_resources(ResourceConfig(cpus=3), 0.2, said.append)
    assert said == ["waiting for 1 × cpus=3: 1 nodes with 2 CPUs and 0 GPUs; 0 s left"]
    wait_for_resources(ResourceConfig(cpus=2), 0.2, said.append)
    assert len(said) == 1


def _divide(by: int) -> float:
    return 1 / by


@pytest.mark.usefixtures("ray_session")
def test_work_on_each_node_returns_what_failed_beside_what_did_not() -> None:
    nodes = alive_nodes()
    assert on_each(nodes, _divide, 2) == [0.5] * len(nodes)
    (failure,) = on_each(nodes, _divide, 0)
    assert isinstance(failure, ZeroDivisionError)


_THREE_NODES = """
import os
import time
from concurrent.futures import ThreadPoolExecutor

import ray
from ray.cluster_utils import Cluster

from sngd_tune.cluster.nodes import alive_nodes, on_each
from sngd_tune.cluster.resources import slots_on, trial_slots, wait_for_resources
from sngd_tune.records.study import ResourceConfig

def process():
    return os.getpid()


cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
first = cluster.add_node(num_cpus=2)
said = []
with ThreadPoolExecutor() as pool:
    waiting = pool.submit(wait_for_resources, ResourceConfig(cpus=1, workers=4), 60, said.append)
    while not said:
        time.sleep(0.1)
    cluster.add_node(num_cpus=2, num_gpus=1)
    waiting.result()
assert len(said) == 1 and "2 nodes with 2 CPUs" in said[0], said
assert sorted(node.cpus for node in alive_nodes()) == [0, 2, 2]
assert trial_slots(ResourceConfig(cpus=1.5)) == 2
assert trial_slots(ResourceConfig(cpus=0.5, gpus=0.4)) == 2
assert len(set(on_each(alive_nodes(), process))) == 3

cluster.remove_node(first)
deadline = time.monotonic() + 60
while len(alive_nodes()) > 2 and time.monotonic() < deadline:
    time.sleep(0.2)
assert slots_on(alive_nodes(), ResourceConfig(cpus=1)) == 2
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_joins_is_waited_for_and_one_that_died_does_not_count() -> None:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # sockets want a short path
        environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_raylet_start_wait_time_s": "120"}
        command = [sys.executable, "-c", _THREE_NODES]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

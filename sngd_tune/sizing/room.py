"""Whether a trial fits, told before it is started."""

import torch

from sngd_tune.cluster.nodes import alive_nodes
from sngd_tune.records.study import ResourceConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.sizing.largest import state_bytes
from sngd_tune.sizing.resources import gpu_capacities
from sngd_tune.workloads.workload import Workload

__all__ = ["predicted_bytes", "room_of_trial"]

_GB = 1e9


def predicted_bytes(trial: TrialConfig, workload: Workload) -> int:
    """What a worker of a trial needs at least, at its peak: parameters, gradients, optimizer, local Fisher layers.

    Activations, libraries and the data are not in it, so a trial that does not fit by this figure does not fit. Nothing
    of the size of the model is allocated.

    Args:
        trial: whose settings are looked at.
        workload: its model.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = workload.model()
    return 2 * sum(parameter.nbytes for parameter in model.parameters()) + state_bytes(trial, model)


def room_of_trial(resources: ResourceConfig, trials_at_a_time: int) -> float:
    """Bytes that a worker may take: of its share of the smallest GPU, else what it reserves, else its part of a node.

    Args:
        resources: of a trial, in numbers. Ray is up.
        trials_at_a_time: that may lie on one node.
    """
    assert not isinstance(resources.gpus, str)
    assert not isinstance(resources.memory_gb, str)
    if resources.gpus > 0 and (capacities := gpu_capacities()):
        return min(capacities) * min(1.0, resources.gpus)
    if resources.memory_gb is not None:
        return resources.memory_gb * _GB
    nodes = [node.memory for node in alive_nodes() if node.cpus >= resources.cpus]
    return min(nodes, default=float("inf")) / (trials_at_a_time * resources.workers)

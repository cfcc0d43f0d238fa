"""A study's resources in numbers."""

import logging
import math
from collections.abc import Callable

import torch

from sngd_tune.cluster.nodes import alive_nodes, on_each
from sngd_tune.cluster.resources import wait_for_resources
from sngd_tune.cluster.session import import_path
from sngd_tune.errors import ConfigurationError
from sngd_tune.gpu import read_gpus
from sngd_tune.records.study import ResourceConfig, StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.sizing.footprint import Footprint, first_examples, measure, size_of
from sngd_tune.sizing.largest import largest_trials
from sngd_tune.workloads.registry import find_workload
from sngd_tune.workloads.workload import Splits

__all__ = ["MARGIN", "gpu_capacities", "resolve_resources", "settle_resources", "share_of_gpu"]

_log = logging.getLogger(__name__)

#: What is reserved, over what was measured: allocators do not give every byte back, and batches differ.
MARGIN = 1.2
#: Trials on one GPU at most: more would only take turns on it.
_MOST_PER_GPU = 8
#: Seconds until a trial has been tried, the wait for a free GPU included.
_PATIENCE = 600.0
_GB = 1e9


def settle_resources(
    config: StudyConfig, splits: Splits, wait: float = 0.0, say: Callable[[str], object] = _log.info
) -> StudyConfig:
    """The study with its resources in numbers, once the cluster has them. Ray is up.

    Args:
        config: the study.
        splits: its data.
        wait: seconds that an autoscaling cluster has for the nodes.
        say: takes sentences on the way.

    Raises:
        ConfigurationError: as `resolve_resources` and `check_resources`.
    """
    resources = resolve_resources(config, splits, say)
    wait_for_resources(resources, wait, say)
    return config.model_copy(update={"search": config.search.model_copy(update={"resources": resources})})


def resolve_resources(config: StudyConfig, splits: Splits, say: Callable[[str], object] = _log.info) -> ResourceConfig:
    """The resources of a study's trials in numbers. Ray is up.

    Args:
        config: the study; where nothing is ``"auto"``, nothing is done.
        splits: its data.
        say: takes a sentence on what is tried, and one on what was found.

    Raises:
        ConfigurationError: the largest trial does not fit a GPU, or could not be tried; it says which numbers to name.
    """
    resources = config.search.resources
    if "auto" not in (resources.gpus, resources.memory_gb):
        return resources
    on_gpu = bool(resources.gpus) and any(node.gpus for node in alive_nodes())
    workload = find_workload(config.workload)
    trials = largest_trials(config, workload)
    examples = max(trial.epoch_examples or 0 for trial in trials), workload.evaluation_batch
    part = first_examples(splits, *examples)
    say(f"resources: auto: trying the largest trial of each method ({len(trials)}) on a {'GPU' if on_gpu else 'CPU'}")
    found = [_try(trial, part, resources, on_gpu) for trial in trials]
    host, device = max(each.host for each in found), max(each.device for each in found)
    capacity = min([each.capacity for each in found] + (gpu_capacities() if on_gpu else []))
    data = size_of(splits) - size_of(part)
    return _in_numbers(resources, Footprint(host, device + data if on_gpu else 0, capacity), say)


def share_of_gpu(needed: int, capacity: int) -> float:
    """The share ``1/k`` of a GPU, down to Ray's four digits, that holds `needed` bytes with `MARGIN`.

    Raises:
        ConfigurationError: they do not fit.

    >>> share_of_gpu(needed=10 * 10**9, capacity=40 * 10**9)
    0.3333
    """
    fit = int(capacity // (needed * MARGIN))
    if fit == 0:
        raise ConfigurationError(
            f"search.resources.gpus=auto: the largest trial takes {needed / _GB:.1f} GB ({MARGIN:g} times that with its"
            f" margin), and the smallest GPU has {capacity / _GB:.1f} GB; take the largest batches or dearest Fisher"
            " settings out of the space, or name gpus: 1 to try all the same"
        )
    return math.floor(10_000 / min(fit, _MOST_PER_GPU)) / 10_000


def _in_numbers(resources: ResourceConfig, found: Footprint, say: Callable[[str], object]) -> ResourceConfig:
    changes: dict[str, float] = {}
    if resources.gpus == "auto":
        changes["gpus"] = share_of_gpu(found.device, found.capacity) if found.capacity else 0.0
    if resources.memory_gb == "auto":
        changes["memory_gb"] = math.ceil(MARGIN * found.host / _GB * 10) / 10
    taken = f"{found.host / _GB:.2f} GB of main memory"
    if found.capacity:
        taken += f", {found.device / _GB:.2f} of a GPU's {found.capacity / _GB:.1f} GB"
    named = ", ".join(f"{name}={value:g}" for name, value in changes.items())
    say(f"resources: auto: the largest trial takes {taken} at its peak: {named}, with a margin of {MARGIN:g}")
    return resources.model_copy(update=changes)


def _try(trial: TrialConfig, part: Splits, resources: ResourceConfig, on_gpu: bool) -> Footprint:
    """Measure a trial in a task of its own, in a process that nothing else has run in."""
    import ray

    task = ray.remote(max_calls=1, max_retries=0)(_measure).options(num_cpus=resources.cpus, num_gpus=int(on_gpu))
    reference = task.remote(trial, import_path(), part, max(1, int(resources.cpus)))
    try:
        return ray.get(reference, timeout=_PATIENCE)
    except ray.exceptions.RayError as error:
        ray.cancel(reference, force=True)
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0]
        raise ConfigurationError(
            f"search.resources: auto: the largest trial, {dict(trial.parameters)}, could not be tried ({reason}); name"
            " gpus and memory_gb in numbers, or take it out of the space"
        ) from error


def _measure(trial: TrialConfig, modules: str | None, part: Splits, threads: int) -> Footprint:
    import sngd_tune.trainables.trial  # noqa: F401  # a trial's process has Ray Tune beside torch

    torch.set_num_threads(threads)
    return measure(trial, find_workload(trial.workload, modules), part)


def gpu_capacities() -> list[int]:
    """Bytes of each GPU of the cluster that NVML tells of."""
    found = on_each([node for node in alive_nodes() if node.gpus], read_gpus)
    return [gpu.total for each in found if isinstance(each, list) for gpu in each]

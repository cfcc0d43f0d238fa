"""What the nodes of the cluster have, against what a trial wants.

Resources lie on nodes, and a worker lies on one of them: two nodes of two CPUs run two trials of 1.5 CPUs, not three of
them, and none of three CPUs. The workers of one trial may lie on several nodes. A fraction of a GPU lies on one GPU:
1.5 GPUs are nothing that Ray gives out, and of trials that take 0.4 two share a GPU.
"""

import time
from collections.abc import Callable, Sequence

from sngd_tune.cluster.nodes import Node, alive_nodes
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import ResourceConfig

__all__ = ["bundle", "check_resources", "slots_on", "trial_slots", "wait_for_resources"]

_GB = 1e9
#: By Ray's name: the setting, its unit, and how much of Ray's unit it is.
_SETTINGS = {"CPU": ("cpus", "CPUs", 1.0), "GPU": ("gpus", "GPUs", 1.0), "memory": ("memory_gb", "GB", _GB)}
#: Ray counts in ten-thousandths.
_UNIT = 10_000
_REMEDY = "lower it, or join a larger cluster with --address"
#: Seconds between two looks at a cluster that grows, and between two messages about it.
_LOOK, _SAY = 1.0, 15.0


def bundle(resources: ResourceConfig) -> dict[str, float]:
    """What one worker reserves, as Ray's placement groups want it: ``{"CPU": 1.0, "GPU": 0.5, "memory": 2e9}``.

    Args:
        resources: in numbers (`sizing.resources.settle_resources` makes them of ``"auto"``).

    Raises:
        ConfigurationError: they are not in numbers.
    """
    gpus, memory = resources.gpus, resources.memory_gb
    if gpus == "auto" or memory == "auto":
        raise ConfigurationError("search.resources: auto: is worked out for single studies alone; name numbers here")
    wanted = {"CPU": resources.cpus, "GPU": gpus, "memory": (memory or 0.0) * _GB}
    return {name: value for name, value in wanted.items() if value}


def check_resources(resources: ResourceConfig) -> None:
    """Raise ConfigurationError where no trial could ever run, instead of waiting for ever. Ray is up."""
    nodes, wanted = alive_nodes(), bundle(resources)
    for name, (setting, unit, scale) in _SETTINGS.items():
        most = max((_has(node, name) for node in nodes), default=0.0)
        if wanted.get(name, 0.0) > most:
            value = f"search.resources.{setting}={wanted[name] / scale:g}"
            raise ConfigurationError(f"{value}: no node has more than {most / scale:.4g} {unit}; {_REMEDY}")
    room = sum(_room(node, wanted) for node in nodes)
    if room == 0:
        raise ConfigurationError(f"search.resources: no node has {_in_words(wanted)} together; {_REMEDY}")
    if room < resources.workers:
        value = f"search.resources.workers={resources.workers}, each with {_in_words(wanted)}"
        raise ConfigurationError(f"{value}: the cluster has room for {room}; {_REMEDY}")


def wait_for_resources(resources: ResourceConfig, seconds: float, say: Callable[[str], object] = print) -> None:
    """Ask an autoscaling cluster for the nodes that a trial needs, and wait for them. Ray is up.

    Args:
        resources: of a trial, in numbers.
        seconds: to wait at most, ≥ 0; 0: the nodes must be there.
        say: takes a line about how far it is.

    Raises:
        ConfigurationError: as `check_resources`, of the cluster after that time.
    """
    end, told = time.monotonic() + seconds, float("-inf")
    try:
        while slots_on(alive_nodes(), resources) == 0 and (left := end - time.monotonic()) > 0:
            if time.monotonic() - told >= _SAY:
                told = time.monotonic()
                say(f"waiting for {resources.workers} × {_in_words(bundle(resources))}: {_census()}; {left:.0f} s left")
                _request(resources)
            time.sleep(min(_LOOK, left))
    finally:
        if told > float("-inf"):
            _request(None)
    check_resources(resources)


def trial_slots(resources: ResourceConfig) -> int:
    """How many trials the cluster can run at a time, ≥ 1. Ray is up."""
    return max(1, slots_on(alive_nodes(), resources))


def slots_on(nodes: Sequence[Node], resources: ResourceConfig) -> int:
    """How many trials these nodes can run at a time, ≥ 0."""
    wanted = bundle(resources)
    return sum(_room(node, wanted) for node in nodes) // resources.workers


def _room(node: Node, wanted: dict[str, float]) -> int:
    """How many workers fit on a node."""
    return min(_fits(name, _has(node, name), value) for name, value in wanted.items())


def _fits(name: str, has: float, value: float) -> int:
    if name == "GPU" and value < 1:
        return int(has) * (_UNIT // max(1, round(value * _UNIT)))
    return round(has * _UNIT) // max(1, round(value * _UNIT))


def _has(node: Node, name: str) -> float:
    return {"CPU": node.cpus, "GPU": node.gpus, "memory": node.memory}[name]


def _in_words(wanted: dict[str, float]) -> str:
    return ", ".join(f"{_SETTINGS[name][0]}={value / _SETTINGS[name][2]:g}" for name, value in wanted.items())


def _census() -> str:
    nodes = alive_nodes()
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs"


def _request(resources: ResourceConfig | None) -> None:
    """Tell the autoscaler what is needed, which it would not know before there is a trial; None takes that back."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[] if resources is None else [bundle(resources)] * resources.workers)

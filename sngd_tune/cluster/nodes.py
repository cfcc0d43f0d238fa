"""The nodes of a cluster: what each has, and work that is done on each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Node", "alive_nodes", "on_each"]


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        id: Ray's.
        address: its IP address.
        cpus: logical CPUs that Ray gives out, ≥ 0; 0 on many head nodes.
        gpus: likewise.
        memory: bytes of main memory that Ray gives out.
    """

    id: str
    address: str
    cpus: float = 0.0
    gpus: float = 0.0
    memory: float = 0.0


def alive_nodes() -> list[Node]:
    """The nodes that Ray counts as alive, sorted by address. Ray is up."""
    import ray

    return sorted(map(_node, filter(lambda node: node["Alive"], ray.nodes())), key=lambda node: node.address)


def on_each(nodes: Sequence[Node], work: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> list[Any]:
    """Call `work` once on each node, in a process of its own that reserves nothing.

    Args:
        nodes: where.
        work: an importable function.
        arguments: of `work`.
        seconds: after which nobody waits any longer.

    Returns:
        In the order of `nodes`: what `work` returned, or the exception (not raised) with which that failed.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(work)
    sent = [
        task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(*arguments)
        for node in nodes
    ]
    ready, _ = ray.wait(sent, num_returns=len(sent), timeout=seconds) if sent else ([], [])
    return [_outcome(reference) if reference in ready else _late(reference, seconds) for reference in sent]


def _node(values: dict[str, Any]) -> Node:
    has = values["Resources"]
    return Node(
        id=values["NodeID"],
        address=values["NodeManagerAddress"],
        cpus=has.get("CPU", 0.0),
        gpus=has.get("GPU", 0.0),
        memory=has.get("memory", 0.0),
    )


def _outcome(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return error


def _late(reference: Any, seconds: float) -> TimeoutError:
    import ray

    ray.cancel(reference, force=True)
    return TimeoutError(f"no answer within {seconds:g} s")

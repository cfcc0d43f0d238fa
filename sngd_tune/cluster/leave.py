"""Leaving a cluster: a node that will be taken away tells Ray and its trials, and waits until they are safe.

Ray places nothing new on a node that drains, and lets what runs there run; the trials find the notice after their next
epochs, write a checkpoint, and go on from it on another node.
"""

import time

from sngd_tune.cluster.nodes import Node, alive_nodes
from sngd_tune.errors import ConfigurationError
from sngd_tune.notice import give_notice

__all__ = ["leave"]

_PAUSE = 0.2


def leave(seconds: float, node: str | None = None) -> bool:
    """Empty a node of this machine's, which goes within `seconds`. Ray is up.

    Args:
        seconds: until it is taken away, > 0.
        node: its address or Ray's id; None: the one that this machine is.

    Returns:
        Whether nothing runs on it any more; False where the time was over first.

    Raises:
        ConfigurationError: no node of the cluster is meant, or the head, or Ray does not let it go.
    """
    deadline = time.time() + seconds
    leaving = _find(node)
    _drain(leaving, deadline)
    give_notice(leaving.id)
    while _in_use(leaving):
        if time.time() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _find(wanted: str | None) -> Node:
    """The node that is meant."""
    nodes = alive_nodes()
    names = _addresses() if wanted is None else {wanted}
    found = [node for node in nodes if node.address in names or node.id in names]
    if len(found) != 1:
        there = ", ".join(f"{node.address} ({node.id})" for node in nodes)
        meant = "this machine's addresses belong" if wanted is None else f"node={wanted!r}: belongs"
        raise ConfigurationError(f"{meant} to {len(found)} nodes of the cluster; name one with --node: {there}")
    return found[0]


def _addresses() -> set[str]:
    """The IP addresses of this machine."""
    import psutil

    return {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}


def _drain(node: Node, deadline: float) -> None:
    """What Ray's autoscaler does before a node of a cloud is preempted; there is no public call for it."""
    import ray
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]  # generated

    if _resources(node).get("node:__internal_head__"):
        rule = "the cluster ends with its head; `sngd-tune resume` goes on with the study on a new one"
        raise ConfigurationError(f"node {node.address}: is the head: {rule}")
    control = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)  # type: ignore[attr-defined]
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, refusal = control.drain_node(node.id, reason, "sngd-tune cluster leave", int(deadline * 1000))
    if not accepted:
        raise ConfigurationError(f"node {node.address}: Ray does not let it go ({refusal})")


def _in_use(node: Node) -> bool:
    """Whether anything holds CPUs there; a node without is none any more once Ray has let it go."""
    from ray._private.state import available_resources_per_node

    if not _resources(node):
        return False
    free = available_resources_per_node().get(node.id, {})
    return bool(free.get("CPU", 0.0) < node.cpus)


def _resources(node: Node) -> dict[str, float]:
    """What Ray gives out there, empty where the node is gone."""
    import ray

    return next((each["Resources"] for each in ray.nodes() if each["NodeID"] == node.id and each["Alive"]), {})

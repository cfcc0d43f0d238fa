"""The rule for Kubernetes' network, which is about all objects together."""

from collections.abc import Iterator, Sequence

from sngd_tune.cluster.rules.documents import Document, Kind
from sngd_tune.cluster.rules.pods import pods, title
from sngd_tune.cluster.rules.rule import Rule
from sngd_tune.cluster.rules.values import Object, at, mapping, mappings, words

__all__ = ["RULES"]


def _isolation(documents: Sequence[Document]) -> Iterator[tuple[Document, str]]:
    """Every namespace with pods is closed, and no policy opens it to the world."""
    policies = [document for document in documents if document.data["kind"] == "NetworkPolicy"]
    closed = {_namespace(policy.data) for policy in policies if _closes_all(mapping(policy.data, "spec"))}
    for document in documents:
        if any(pods(document.data)) and _namespace(document.data) not in closed:
            yield document, f"{title(document.data)}: no policy closes all pods of {_namespace(document.data)!r}"
    for policy in policies:
        if _lets_anyone_in(mapping(policy.data, "spec")):
            yield policy, f"{title(policy.data)}: lets anyone in"


def _namespace(manifest: Object) -> str:
    return str(at(manifest, "metadata", "namespace") or "default")


def _closes_all(spec: Object) -> bool:
    everything = spec.get("podSelector") == {} and set(words(spec, "policyTypes")) == {"Ingress", "Egress"}
    return everything and not spec.get("ingress") and not spec.get("egress")


def _lets_anyone_in(spec: Object) -> bool:
    """A rule without `from`, from all namespaces, or from all addresses."""
    for rule in mappings(spec, "ingress"):
        peers = mappings(rule, "from")
        if not peers or any(peer.get("namespaceSelector") == {} for peer in peers):
            return True
        if any(str(at(peer, "ipBlock", "cidr")).endswith("/0") for peer in peers):
            return True
    return False


RULES: tuple[Rule, ...] = (
    Rule(
        "isolation",
        Kind.KUBERNETES,
        "give a NetworkPolicy with podSelector: {} and policyTypes: [Ingress, Egress]; name the peers in others",
        _isolation,
    ),
)

"""Rules for Kubernetes objects, one pod and one object at a time."""

import re
from collections.abc import Iterator

from sngd_tune.cluster.images import unpinned
from sngd_tune.cluster.rules.documents import Kind
from sngd_tune.cluster.rules.pods import containers, is_ray, pods, ray_cluster, title
from sngd_tune.cluster.rules.rule import Rule, each
from sngd_tune.cluster.rules.values import Object, at, mapping, mappings, words

__all__ = ["RULES"]

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|PRIVATE_KEY|ACCESS_KEY", re.IGNORECASE)
_SECRET_IN_URI = re.compile(r"://[^/\s:@]+:(?!\$\()[^/\s@]+@")
_RESOURCES = ("cpu", "memory")


def _authentication(manifest: Object) -> Iterator[str]:
    if is_ray(manifest) and at(ray_cluster(manifest), "authOptions", "mode") != "token":
        yield f"{title(manifest)}: authOptions.mode is not token"
    for pod, name, container in _containers(manifest):
        for variable in mappings(container, "env"):
            # The operator leaves a mode that is there as it is.
            if variable.get("name") == "RAY_AUTH_MODE" and variable.get("value") != "token":
                yield f"{pod}, {name}: RAY_AUTH_MODE is not token"


def _open_addresses(manifest: Object) -> Iterator[str]:
    for pod, name, container in _containers(manifest):
        command = [*words(container, "command"), *words(container, "args")]
        if "mlflow" in command and "basic-auth" not in command and any("0.0.0.0" in word for word in command):
            yield f"{pod}, {name}: mlflow listens on 0.0.0.0 without --app-name basic-auth"
    if manifest["kind"] == "Ingress":
        yield f"{title(manifest)}: leads in from outside"
    service = at(manifest, "spec", "type") if manifest["kind"] == "Service" else None
    head = at(ray_cluster(manifest), "headGroupSpec", "serviceType") if is_ray(manifest) else None
    if {str(service), str(head)} & {"LoadBalancer", "NodePort"}:
        yield f"{title(manifest)}: a service of type {service or head} leads in from outside"


def _limits(manifest: Object) -> Iterator[str]:
    for pod, name, container in _containers(manifest):
        for part in ("requests", "limits"):
            missing = [resource for resource in _RESOURCES if resource not in mapping(container, "resources", part)]
            if missing:
                yield f"{pod}, {name}: no {part} of {' and '.join(missing)}"


def _deadlines(manifest: Object) -> Iterator[str]:
    if manifest["kind"] != "RayJob":
        return
    spec = mapping(manifest, "spec")
    for field in ("activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"):
        if field not in spec:
            yield f"{title(manifest)}: no {field}"
    if spec.get("shutdownAfterJobFinishes") is not True:
        yield f"{title(manifest)}: shutdownAfterJobFinishes is not true"


def _pinned_images(manifest: Object) -> Iterator[str]:
    for pod, name, container in _containers(manifest):
        problem = unpinned(str(container.get("image", "")))
        if problem:
            yield f"{pod}, {name}: {problem}"


def _non_root(manifest: Object) -> Iterator[str]:
    for pod, spec in pods(manifest):
        whole = mapping(spec, "securityContext")
        if whole.get("runAsNonRoot") is not True:
            yield f"{pod}: securityContext.runAsNonRoot is not true"
        contexts = [whole, *(mapping(container, "securityContext") for _, container in containers(spec))]
        if any(context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False for context in contexts):
            yield f"{pod}: runs as root"


def _privileges(manifest: Object) -> Iterator[str]:
    for pod, spec in pods(manifest):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                yield f"{pod}: {field} is set"
        for volume in mappings(spec, "volumes"):
            if "hostPath" in volume:
                yield f"{pod}: volume {volume.get('name')} is a hostPath"
    for pod, name, container in _containers(manifest):
        context = mapping(container, "securityContext")
        if context.get("privileged"):
            yield f"{pod}, {name}: privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{pod}, {name}: allowPrivilegeEscalation is not false"
        if "ALL" not in words(context, "capabilities", "drop") or at(context, "capabilities", "add"):
            yield f"{pod}, {name}: capabilities are kept"


def _service_accounts(manifest: Object) -> Iterator[str]:
    for pod, spec in pods(manifest):
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{pod}: automountServiceAccountToken is not false"


def _secrets(manifest: Object) -> Iterator[str]:
    if manifest["kind"] == "Secret" and (manifest.get("data") or manifest.get("stringData")):
        yield f"{title(manifest)}: holds its secrets in the file"
    for pod, name, container in _containers(manifest):
        for variable in mappings(container, "env"):
            value, key = str(variable.get("value", "")), str(variable.get("name"))
            plain = _SECRET.search(key) and value and not key.endswith(("_FILE", "_PATH"))
            if plain or _SECRET_IN_URI.search(value):
                yield f"{pod}, {name}: {key} is a secret in plain text"


def _containers(manifest: Object) -> Iterator[tuple[str, str, Object]]:
    for pod, spec in pods(manifest):
        for name, container in containers(spec):
            yield pod, name, container


RULES: tuple[Rule, ...] = (
    each(Kind.KUBERNETES, "authentication", _authentication, "set authOptions: {mode: token, secretName: …}"),
    each(
        Kind.KUBERNETES,
        "open-addresses",
        _open_addresses,
        "keep it inside: basic-auth, ClusterIP, and kubectl port-forward",
    ),
    each(Kind.KUBERNETES, "limits", _limits, "give requests and limits of cpu and memory"),
    each(
        Kind.KUBERNETES,
        "deadlines",
        _deadlines,
        "set activeDeadlineSeconds, ttlSecondsAfterFinished, backoffLimit, and shutdownAfterJobFinishes: true",
    ),
    each(Kind.KUBERNETES, "pinned-images", _pinned_images, "name a version or a digest"),
    each(Kind.KUBERNETES, "non-root", _non_root, "set securityContext: {runAsNonRoot: true, runAsUser: 1000}"),
    each(
        Kind.KUBERNETES,
        "privileges",
        _privileges,
        "set securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}; ask nothing of the host",
    ),
    each(
        Kind.KUBERNETES,
        "service-accounts",
        _service_accounts,
        "set automountServiceAccountToken: false; no trial speaks to Kubernetes",
    ),
    each(
        Kind.KUBERNETES,
        "secrets",
        _secrets,
        "make the Secret with kubectl create, and name it with valueFrom.secretKeyRef",
    ),
)

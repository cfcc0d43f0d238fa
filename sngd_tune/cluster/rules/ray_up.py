"""Rules for clusters that `ray up` makes on AWS and Google."""

import re
from collections.abc import Iterator

from sngd_tune.cluster.images import unpinned
from sngd_tune.cluster.rules.documents import Kind
from sngd_tune.cluster.rules.rule import Rule, each
from sngd_tune.cluster.rules.values import Object, at, mapping, mappings, words

__all__ = ["RULES"]

_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _authentication(cluster: Object) -> Iterator[str]:
    options = _run_options(cluster)
    if "RAY_AUTH_MODE=token" not in options:
        yield "docker.run_options do not set RAY_AUTH_MODE=token"
    if not re.search(r"RAY_AUTH_TOKEN_PATH=\S", options):
        yield "docker.run_options do not set RAY_AUTH_TOKEN_PATH"
    if re.search(r"RAY_AUTH_TOKEN=|RAY_AUTH_MODE=disabled", options + " ".join(_commands(cluster))):
        yield "the token stands in the file, or is switched off"


def _dashboard(cluster: Object) -> Iterator[str]:
    heads = [command for command in _commands(cluster) if re.search(r"ray start\b.*--head", command, re.DOTALL)]
    if not heads:
        yield "head_start_ray_commands are missing, and Ray's own open the dashboard on 0.0.0.0"
    for command in heads:
        for host in re.findall(r"--dashboard-host[= ](\S+)", command):
            if host not in _LOOPBACK:
                yield f"the dashboard listens on {host}"


def _private_addresses(cluster: Object) -> Iterator[str]:
    if at(cluster, "provider", "use_internal_ips") is not True:
        yield "provider.use_internal_ips is not true"
    for name, node in _nodes(cluster):
        for interface in [*mappings(node, "networkInterfaces"), *mappings(node, "NetworkInterfaces"), node]:
            if interface.get("accessConfigs") or interface.get("AssociatePublicIpAddress"):
                yield f"{name}: has a public address"
        if at(cluster, "provider", "type") == "gcp" and not node.get("networkInterfaces"):
            yield f"{name}: no networkInterfaces, and Ray's own have a public address"


def _ssh(cluster: Object) -> Iterator[str]:
    if at(cluster, "provider", "type") == "aws":
        for name, node in _nodes(cluster):
            if not node.get("SecurityGroupIds") and not node.get("NetworkInterfaces"):
                yield f"{name}: no SecurityGroupIds, and a group that Ray makes lets 0.0.0.0/0 in to port 22"
    if re.search(r"0\.0\.0\.0/0|::/0", str(at(cluster, "provider", "security_group"))):
        yield "provider.security_group lets everyone in"


def _metadata(cluster: Object) -> Iterator[str]:
    if at(cluster, "provider", "type") == "aws":
        for name, node in _nodes(cluster):
            if at(node, "MetadataOptions", "HttpTokens") != "required":
                yield f"{name}: MetadataOptions.HttpTokens is not required"


def _pinned_images(cluster: Object) -> Iterator[str]:
    docker = mapping(cluster, "docker")
    images = {str(docker[key]) for key in ("image", "head_image", "worker_image") if key in docker}
    if not images:
        yield "docker.image is missing"
    yield from filter(None, map(unpinned, sorted(images)))
    for name, node in _nodes(cluster):
        if at(cluster, "provider", "type") == "aws" and not str(node.get("ImageId", "")).startswith("ami-"):
            yield f"{name}: no ImageId"
        if "/family/" in str(node.get("disks", "")):
            yield f"{name}: sourceImage is a family, which moves"


def _limits(cluster: Object) -> Iterator[str]:
    if not cluster.get("max_workers"):
        yield "max_workers is missing"
    if not cluster.get("idle_timeout_minutes"):
        yield "idle_timeout_minutes is missing or 0"


def _privileges(cluster: Object) -> Iterator[str]:
    options = _run_options(cluster)
    if re.search(r"--privileged|--cap-add|--user[= ](0|root)\b|--pid[= ]host|docker\.sock", options):
        yield "docker.run_options give the container power over its machine"
    for needed in ("--cap-drop=ALL", "--security-opt=no-new-privileges"):
        if needed not in options:
            yield f"docker.run_options lack {needed}"


def _run_options(cluster: Object) -> str:
    keys = ("run_options", "head_run_options", "worker_run_options")
    return " ".join(option for key in keys for option in words(cluster, "docker", key))


def _commands(cluster: Object) -> list[str]:
    return [command for key in _COMMANDS for command in words(cluster, key)]


def _nodes(cluster: Object) -> Iterator[tuple[str, Object]]:
    for name, node_type in mapping(cluster, "available_node_types").items():
        yield name, mapping(node_type, "node_config")


RULES: tuple[Rule, ...] = (
    each(
        Kind.RAY_UP,
        "authentication",
        _authentication,
        "set both for the container, with the token in a file of mode 0600",
    ),
    each(
        Kind.RAY_UP,
        "open-addresses",
        _dashboard,
        "start the head with --dashboard-host=127.0.0.1; `ray dashboard` forwards it",
    ),
    each(
        Kind.RAY_UP,
        "private-addresses",
        _private_addresses,
        "set use_internal_ips: true and give no node a public address",
    ),
    each(
        Kind.RAY_UP,
        "ssh",
        _ssh,
        "name a security group that lets in its own members alone; SSH comes through ssh_proxy_command",
    ),
    each(Kind.RAY_UP, "metadata", _metadata, "set MetadataOptions: {HttpTokens: required}"),
    each(Kind.RAY_UP, "pinned-images", _pinned_images, "name a version or a digest, and a machine image that stays"),
    each(Kind.RAY_UP, "limits", _limits, "set max_workers and idle_timeout_minutes"),
    each(
        Kind.RAY_UP,
        "privileges",
        _privileges,
        "run with --cap-drop=ALL and --security-opt=no-new-privileges, and nothing more",
    ),
)

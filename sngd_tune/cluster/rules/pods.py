"""The pods that Kubernetes objects ask for."""

from collections.abc import Iterator

from sngd_tune.cluster.rules.values import Object, at, mapping, mappings

__all__ = ["containers", "is_ray", "pods", "ray_cluster", "title"]


def title(manifest: Object) -> str:
    """``Deployment mlflow``."""
    return f"{manifest['kind']} {at(manifest, 'metadata', 'name')}"


def is_ray(manifest: Object) -> bool:
    """Whether KubeRay makes a cluster of it; a RayJob may also use one that is there."""
    return manifest["kind"] in ("RayCluster", "RayJob", "RayService") and not at(manifest, "spec", "clusterSelector")


def ray_cluster(manifest: Object) -> Object:
    """The specification of the cluster that a RayCluster is, or that another object makes."""
    if manifest["kind"] == "RayCluster":
        return mapping(manifest, "spec")
    return mapping(manifest, "spec", "rayClusterSpec" if manifest["kind"] == "RayJob" else "rayClusterConfig")


def pods(manifest: Object) -> Iterator[tuple[str, Object]]:
    """Each pod's role and specification: of Ray's head, worker groups and submitter, of workloads, of a bare pod."""
    for role, template in _templates(manifest):
        yield f"{title(manifest)}, {role}", mapping(template, "spec")


def _templates(manifest: Object) -> Iterator[tuple[str, Object]]:
    if is_ray(manifest):
        cluster = ray_cluster(manifest)
        yield "head", mapping(cluster, "headGroupSpec", "template")
        for group in mappings(cluster, "workerGroupSpecs"):
            yield f"workers {group.get('groupName')}", mapping(group, "template")
    if manifest["kind"] == "RayJob" and at(manifest, "spec", "submissionMode") in (None, "K8sJobMode"):
        yield "submitter", mapping(manifest, "spec", "submitterPodTemplate")
    if manifest["kind"] == "Pod":
        yield "pod", manifest
    elif manifest["kind"] == "CronJob":
        yield "pod", mapping(manifest, "spec", "jobTemplate", "spec", "template")
    elif "template" in mapping(manifest, "spec"):
        yield "pod", mapping(manifest, "spec", "template")


def containers(pod: Object) -> Iterator[tuple[str, Object]]:
    """Name and specification of each container, those that run at the start included."""
    for container in [*mappings(pod, "initContainers"), *mappings(pod, "containers")]:
        yield str(container.get("name")), container

"""What the templates of a place ask: one model a place, each answer with its type, its default and its meaning.

Answers are put into YAML and shell as they stand, so the characters that they may have are part of their types.
"""

import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field
from pydantic.fields import FieldInfo

from sngd_tune.cluster.images import unpinned
from sngd_tune.records.strict import Strict

__all__ = ["Answers", "AwsAnswers", "GcpAnswers", "KuberayAnswers", "SlurmAnswers", "questions"]


#: What YAML 1.2 reads as a number and 1.1, which PyYAML speaks, as a word.
_NUMBER = re.compile(r"[0-9]+e[+-]?[0-9]+|0o[0-7]+", re.IGNORECASE)


def _word(value: str) -> str:
    """YAML must read back what is written: ``no`` and ``1e3`` are no words there."""
    read = yaml.safe_load(value)
    if read != value or _NUMBER.fullmatch(value):
        raise ValueError("must be a word for all readers of YAML, which take it for another value; choose another")
    return value


def _pinned(image: str) -> str:
    problem = unpinned(image)
    if problem:
        raise ValueError(f"{problem}; name a version, such as registry.example/sngd_tune:0.3.0, or a digest")
    return image


def _network(value: str) -> str:
    try:
        return str(IPv4Network(value))
    except ValueError as error:
        raise ValueError(f"{error}; write it as 10.1.0.0/16") from error


def _uri(*schemes: str) -> Callable[[str], str]:
    """A rule for URIs: one of these schemes, and no password, since rendered files are no place for it."""

    def check(uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme not in schemes or not parts.netloc:
            raise ValueError(f"must be a URI such as {schemes[0]}://…; allowed: {', '.join(schemes)}")
        if "@" in parts.netloc:
            raise ValueError("must hold no name or password; give them to the nodes as a secret")
        return uri

    return check


#: A label of DNS: Kubernetes, the clouds and Slurm all take it.
Label = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40), AfterValidator(_word)]
#: One word for YAML and shell alike.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:@+-]*$", max_length=300), AfterValidator(_word)]
Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./+-]*$", max_length=300)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./+-]+$", max_length=200)]
Image = Annotated[Word, AfterValidator(_pinned)]
ObjectStore = Annotated[Word, AfterValidator(_uri("s3", "gs"))]
Server = Annotated[Word, AfterValidator(_uri("https", "http"))]
Count = Annotated[int, Field(ge=1, le=10_000)]
Gpus = Annotated[int, Field(ge=0, le=64)]
Gigabytes = Annotated[int, Field(ge=1, le=100_000)]
Hours = Annotated[int, Field(ge=1, le=8760)]


class Answers(Strict):
    """What every place asks."""

    name: Label = Field(default="sngd-tune", description="of the cluster; all that is made bears it")
    study: Path = Field(default="study.yaml", description="the study file, for the commands that are printed")


class KuberayAnswers(Answers):
    """A Kubernetes cluster with the KubeRay operator, 1.6 or newer."""

    image: Image = Field(description="what cluster/Dockerfile builds, with its version")
    namespace: Label = Field(default="sngd-tune", description="that is made, and closed")
    operator_namespace: Label = Field(default="kuberay-operator", description="in which the KubeRay operator runs")
    workers: Count = Field(default=2, description="pods on which trials run")
    cpus: Count = Field(default=4, description="of a worker")
    memory_gb: Gigabytes = Field(default=16, description="of a worker (10⁹ bytes)")
    gpus: Gpus = Field(default=0, description="of a worker")
    gpu_resource: Word = Field(default="nvidia.com/gpu", description="what Kubernetes calls such a GPU")
    head_cpus: Count = Field(default=2, description="of the head, where drivers run and trials do not")
    head_memory_gb: Gigabytes = Field(default=8, description="of the head (10⁹ bytes)")
    storage: ObjectStore | None = Field(
        default=None, description="object store for run directories and checkpoints; none: a volume that all pods share"
    )
    storage_cidr: Annotated[str, AfterValidator(_network)] = Field(
        default="0.0.0.0/0", description="addresses of the object store, to which pods may speak on port 443"
    )
    storage_class: Word | None = Field(default=None, description="of the shared volume, ReadWriteMany; none: default")
    storage_gb: Gigabytes = Field(default=50, description="of the shared volume, and of MLflow's artifacts")
    data_claim: Label | None = Field(default=None, description="volume claim with the data sets, mounted as /data")
    optuna: Literal["memory", "postgresql"] = Field(
        default="memory", description="where Optuna keeps a study; postgresql: drivers can share one"
    )
    hours: Hours = Field(default=24, description="after which a RayJob is ended")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(default=3, description="of a RayJob whose cluster was lost")
    postgresql_image: Image = Field(default="postgres:17.6-bookworm", description="of MLflow's database")
    ray_version: Word = Field(default_factory=lambda: version("ray"), description="in the image; default: this one's")


class CloudAnswers(Answers):
    """What AWS and Google ask both."""

    image: Image = Field(description="what cluster/Dockerfile builds, with its version")
    storage: ObjectStore = Field(description="object store for run directories and checkpoints")
    workers: Count = Field(default=4, description="spot machines at the most")
    cpus: Count = Field(default=8, description="of a worker, for trials")
    gpus: Gpus = Field(default=0, description="of a worker")
    disk_gb: Gigabytes = Field(default=100, description="of each machine")
    idle_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(default=10, description="after which a worker goes")
    mlflow: Server | None = Field(default=None, description="MLflow server; none: SQLite beside the run directory")
    ssh_user: Label = Field(default="ubuntu", description="of the machine image; its uid must be 1000, the container's")


class AwsAnswers(CloudAnswers):
    """EC2, through `ray up`."""

    region: Label = Field(description="such as eu-central-1")
    ami: Annotated[str, Field(pattern=r"^ami-[0-9a-f]{8,17}$")] = Field(
        description="machine image with Docker and the SSM agent (a Deep Learning AMI has them, and GPU drivers)"
    )
    subnet: Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")] = Field(
        description="private subnet, with a way to the registry and to Systems Manager"
    )
    security_group: Annotated[str, Field(pattern=r"^sg-[0-9a-f]{8,17}$")] = Field(
        description="that lets in its own members and nobody else"
    )
    instance_profile: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:instance-profile/[\w+=,.@/-]+$")] = (
        Field(description="ARN: start and end these machines (head), Systems Manager, the object store")
    )
    head_type: Word = Field(default="m7i.large", description="machine type of the head, where no trial runs")
    worker_type: Word = Field(default="c7i.2xlarge", description="machine type of the workers")


class GcpAnswers(CloudAnswers):
    """Compute Engine, through `ray up`."""

    project: Label = Field(description="project id")
    region: Label = Field(default="europe-west4", description="of the subnet")
    zone: Label = Field(default="europe-west4-a", description="of the machines")
    network: Label = Field(description="VPC network of the subnet")
    subnet: Label = Field(description="private subnet, with Cloud NAT or Private Google Access to the registry")
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com$")] = Field(
        description="of the workers: may read and write the object store, and nothing else"
    )
    source_image: Annotated[str, Field(pattern=r"^projects/[a-z0-9-]+/global/images/[a-z0-9-]+$")] = Field(
        description="machine image with Docker, by name and not by family, which moves"
    )
    gpu_type: Label = Field(default="nvidia-l4", description="of the workers, where gpus > 0")
    head_type: Word = Field(default="n2-standard-2", description="machine type of the head, where no trial runs")
    worker_type: Word = Field(default="n2-standard-8", description="machine type of the workers")


class SlurmAnswers(Answers):
    """A Slurm cluster whose nodes share a file system."""

    nodes: Count = Field(default=2, description="of the job; trials run on all of them")
    cpus: Annotated[int, Field(ge=1, le=150)] = Field(default=8, description="of a node")
    memory_gb: Gigabytes = Field(default=32, description="of a node")
    gpus: Gpus = Field(default=0, description="of a node")
    hours: Hours = Field(default=12, description="of a job; an unfinished study is queued again")
    runs: AbsolutePath = Field(description="folder that all nodes see: run directories, logs, the job's token")
    partition: Word | None = Field(default=None, description="default: the cluster's own")
    account: Word | None = Field(default=None, description="default: the user's own")
    setup: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)] | None = Field(
        default=None, description="shell line that makes sngd-tune callable, such as: source /shared/venv/bin/activate"
    )


def questions(model: type[Answers]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each answer; what has no default must be answered."""
    for name, field in model.model_fields.items():
        yield name, _default_text(field), field.description or ""


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "(must be given)"
    default: Any = field.get_default(call_default_factory=True)
    return "" if default is None else str(default)

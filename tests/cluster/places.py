"""Answers for each place: the fewest that do, and all of them."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sngd_tune.cluster.render import PLACES, Rendered, render

__all__ = ["FEWEST", "ROOT", "documents", "rendered"]

ROOT = Path(__file__).parents[2]
_IMAGE = "registry.example/sngd_tune:0.3.0"

FEWEST: dict[str, dict[str, Any]] = {
    "kuberay": {"image": _IMAGE},
    "aws": {
        "image": _IMAGE,
        "storage": "s3://bucket/runs",
        "region": "eu-central-1",
        "ami": "ami-0123456789abcdef0",
        "subnet": "subnet-0123456789abcdef0",
        "security_group": "sg-0123456789abcdef0",
        "instance_profile": "arn:aws:iam::123456789012:instance-profile/sngd-tune",
    },
    "gcp": {
        "image": _IMAGE,
        "storage": "gs://bucket/runs",
        "project": "my-project",
        "network": "closed",
        "subnet": "closed-west4",
        "service_account": "worker@my-project.iam.gserviceaccount.com",
        "source_image": "projects/my-project/global/images/docker-20261101",
    },
    "slurm": {"runs": "/shared/runs"},
}

_MORE: dict[str, dict[str, Any]] = {
    "kuberay": {
        "storage": "s3://bucket/runs",
        "storage_cidr": "10.1.0.0/16",
        "data_claim": "data-sets",
        "optuna": "postgresql",
        "gpus": 2,
        "workers": 8,
        "hours": 48,
    },
    "aws": {"gpus": 1, "mlflow": "https://mlflow.example"},
    "gcp": {"gpus": 1, "mlflow": "https://mlflow.example"},
    "slurm": {
        "gpus": 4,
        "nodes": 1,
        "partition": "gpu",
        "account": "team",
        "setup": "source /shared/venv/bin/activate",
    },
}


@cache
def rendered(place: str, full: bool = False) -> Rendered:
    """A place from the fewest answers, or from all."""
    answers = {**FEWEST[place], **(_MORE[place] if full else {})}
    return render(place, PLACES[place].model_validate(answers), Path("out dir"))


def documents(place: str, full: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """The YAML documents of a place, each with the name of its file."""
    texts = [(path, text) for path, text in rendered(place, full).files.items() if path.endswith(".yaml")]
    return [(path, data) for path, text in texts for data in yaml.safe_load_all(text) if data is not None]

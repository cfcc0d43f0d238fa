"""Files of a cluster as documents: which kind each is, by what it holds."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from sngd_tune.cluster.rules.values import mappings
from sngd_tune.errors import ConfigurationError

__all__ = ["Document", "Kind", "read_documents"]


class Kind(StrEnum):
    """Kinds of documents that have rules."""

    KUBERNETES = "Kubernetes object"
    RAY_UP = "cluster of `ray up`"
    SLURM = "batch script of Slurm"
    DOCKERFILE = "Dockerfile"


@dataclass(frozen=True)
class Document:
    """One document of a file.

    Attributes:
        source: name of the file, for messages.
        kind: what it is.
        data: the mapping that YAML holds, or the text of a script or Dockerfile.
    """

    source: str
    kind: Kind
    data: Any


def read_documents(source: str, text: str) -> list[Document]:
    """The documents in a file's text; none where it is of no kind that has rules, such as a helper script.

    Raises:
        ConfigurationError: YAML that cannot be read.
    """
    if re.search(r"^#SBATCH\b", text, re.MULTILINE):
        return [Document(source, Kind.SLURM, text)]
    if re.search(r"^FROM\s", text, re.MULTILINE):
        return [Document(source, Kind.DOCKERFILE, text)]
    if not source.endswith((".yaml", ".yml")):
        return []
    try:
        return list(_yaml_documents(source, text))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source}: not readable as YAML: {error}") from error


def _yaml_documents(source: str, text: str) -> Iterator[Document]:
    for data in yaml.safe_load_all(text):
        if not isinstance(data, dict):
            continue
        if "apiVersion" in data and "kind" in data:
            for manifest in mappings(data, "items") if data["kind"] == "List" else [data]:
                yield Document(source, Kind.KUBERNETES, {"kind": None, **manifest})
        elif "cluster_name" in data and "provider" in data:
            yield Document(source, Kind.RAY_UP, data)

"""Published schemas: of Kubernetes' own kinds, of KubeRay's, and of `ray up`."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

__all__ = ["check_kubernetes"]

_FOLDER = Path(os.environ.get("SNGD_TUNE_SCHEMAS", Path(__file__).parents[3] / "shared" / "schemas"))
_KUBERNETES = "1.34"


def check_kubernetes(data: dict[str, Any]) -> None:
    """Raise where a Kubernetes object is not what its schema says; a field that the schema lacks counts, too."""
    if data["apiVersion"] == "ray.io/v1":
        jsonschema.Draft202012Validator(_ray_schema(data["kind"])).validate(data)
    else:
        kubernetes_validate.validate(data, _KUBERNETES, strict=True)


@cache
def _ray_schema(kind: str) -> dict[str, Any]:
    path = _FOLDER / f"ray.io_{kind.lower()}s.crd.yaml"
    if not path.exists():
        pytest.skip(f"{path.name}: not in {_FOLDER}; SNGD_TUNE_SCHEMAS names the folder of KubeRay's definitions")
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1")
    schema["properties"]["metadata"] = {}  # said by Kubernetes itself
    _close(schema)
    return dict(schema)


def _close(schema: Any) -> None:
    """Kubernetes drops fields that a definition lacks; here they are errors."""
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            _close(value)

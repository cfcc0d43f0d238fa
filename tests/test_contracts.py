"""What the project promises about itself: import contracts that bite, pins that fit, one version."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sngd_tune

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))

#: contract → a module and an import that breaks it, and, where possible, no other. All inside a function: a deferred
#: import counts.
VIOLATIONS = {
    "layers": ("search/seeds.py", "import sngd_tune.tracking.schema"),
    "method": ("reconstruction/layers.py", "import sngd_tune.records.trial"),
    "torch-alone": ("core/dense.py", "import numpy"),
    "no-torch": ("report/values.py", "import sngd_tune.workloads.workload"),
    "ray": ("tracking/live.py", "from ray import tune"),
    "optuna": ("launch.py", "import optuna"),
    "mlflow": ("mlflow_ui.py", "import mlflow.server"),
    "nvml": ("memory.py", "import pynvml"),
    "pyarrow": ("report/summary.py", "import pyarrow.dataset"),
    "torch": ("launch.py", "import torch"),
}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def broken_contracts(folder):
    """Names of the contracts that import-linter finds broken, and all that it looked at."""
    linter = Path(sys.executable).with_name("lint-imports")
    output = subprocess.run(
        [linter, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, timeout=120
    ).stdout
    return {c["id"] for c in contracts() if re.search(re.escape(c["name"]) + r"\s*BROKEN", output)}, output


def contracts():
    return PROJECT["tool"]["importlinter"]["contracts"]


def test_each_import_contract_bites(tmp_path):
    assert {contract["id"] for contract in contracts()} == set(VIOLATIONS)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "sngd_tune", tmp_path / "sngd_tune", ignore=shutil.ignore_patterns("__pycache__"))
    for path, statement in VIOLATIONS.values():
        with (tmp_path / "sngd_tune" / path).open("a", encoding="utf-8") as file:
            file.write(f"\n\ndef _planted():\n    {statement}\n")
    broken, output = broken_contracts(tmp_path)
    assert broken == set(VIOLATIONS), output


@pytest.mark.parametrize("extra", ["", *PROJECT["project"]["optional-dependencies"]])
def test_each_dependency_is_pinned_within_its_range(extra):
    project = PROJECT["project"]
    pins = {canonical(name): pin for name, pin in PINS.items()}
    for requirement in map(Requirement, project["optional-dependencies"].get(extra, project["dependencies"])):
        pin = pins.get(canonical(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement.name}=={pin} is not {requirement.specifier}"


def test_pins_name_releases_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) == len(PINS)
    cuda = [line for line in pins if line.startswith("nvidia") and not line.startswith("nvidia-ml-py=")]
    assert not cuda
    assert not [line for line in pins if "+" in line or "@" in line or "/" in line]


def test_the_installed_version_is_the_one_of_the_package():
    assert version("sngd_tune") == sngd_tune.__version__

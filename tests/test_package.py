"""The public surface, and what importing costs."""

import subprocess
import sys

import pytest

import sngd_tune


@pytest.mark.parametrize("name", sngd_tune.__all__)
def test_public_names_are_the_same_each_time(name):
    """Twice: a sub-package of the same name would hide a function from the second look on."""
    assert getattr(sngd_tune, name) is getattr(sngd_tune, name)


def test_the_surface_is_complete_and_each_name_has_one_home():
    assert set(dir(sngd_tune)) == set(sngd_tune.__all__) == {*sngd_tune._HOMES, "__version__"}


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sngd_tune.nothing


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_importing_the_package_imports_no_heavy_library():
    heavy = run(
        "import sngd_tune, sys; print(sorted({'torch', 'ray', 'optuna', 'mlflow', 'pyarrow'} & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"


def test_the_optimizer_core_needs_torch_alone():
    """With every other dependency made impossible to import."""
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "optuna", "mlflow", "pyarrow", "pydantic", "yaml", "rich", "typer", "psutil"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
from sngd_tune import SNGD, FisherSettings, reconstruct, restore, account
from sngd_tune import diagnostics, observe_outputs, predicted_memory, select_settings
model = torch.nn.Linear(3, 2)
optimizer = SNGD(model, FisherSettings(warmup_batches=0), base="sgd")
model(torch.ones(4, 3)).sum().backward(); optimizer.step()
restore(reconstruct(model)); print("fine")
"""
    assert run(program).strip() == "fine"

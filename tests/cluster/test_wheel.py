"""The templates travel with the package."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cluster.places import ROOT, rendered

PROGRAM = """
import sys
import sngd_tune
assert sngd_tune.__file__.startswith(sys.argv[1]), sngd_tune.__file__
from sngd_tune.cli import app
app(["cluster", "render", "slurm", "--out", "out dir", "--set", "runs=/shared/runs"])
"""


@pytest.mark.slow
def test_an_installed_package_renders_what_the_repository_does(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("sngd_tune", "cluster"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(target)
    assert not [name for name in names if "/templates/" in name and name.endswith(".py")]
    subprocess.run([sys.executable, "-c", PROGRAM, target], cwd=tmp_path, env={"PYTHONPATH": str(target)}, check=True)
    assert (tmp_path / "out dir" / "study.sbatch").read_text() == rendered("slurm").files["study.sbatch"]

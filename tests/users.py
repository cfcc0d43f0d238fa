"""A user's folder: own workload, study file, nothing of the repository."""

from pathlib import Path

import yaml

from tests.studies import ROOT

__all__ = ["write_user_folder"]

#: Moons, slow enough to be interrupted.
_SLOW = """

class Slow(Moons):
    def loss(self, outputs, targets):
        import time

        time.sleep(0.2 if outputs.requires_grad else 0.0)
        return super().loss(outputs, targets)
"""


def write_user_folder(folder: Path, trials: int, confirm_seeds: int) -> None:
    """Write ``my_moons.py`` and ``mine.yaml`` into a folder that exists."""
    study = {
        "schema": 1,
        "name": "mine",
        "workload": "my_moons:Slow",
        "epochs": 3,
        "fixed": {"batch_size": 100},
        "space": {"lr": {"low": 0.01, "high": 0.2, "log": True}},
        "search": {"trials": trials, "scheduler": {"name": "none"}},
        "confirm": {"seeds": confirm_seeds},
        "mlflow": {"enabled": False},
    }
    moons = (ROOT / "tests" / "examples" / "moons.py").read_text()
    (folder / "my_moons.py").write_text(moons + _SLOW)
    (folder / "mine.yaml").write_text(yaml.safe_dump(study))

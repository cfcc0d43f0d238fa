"""A study to which something happens: four trials of six epochs of 0.6 s, with a checkpoint after each."""

from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen
from typing import Any

import yaml

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from tests.faults.nodes import Nodes, until
from tests.studies import FAULTS, attempts, epochs, measured, study

__all__ = ["EPOCHS", "TRIALS", "Disturbed", "finish", "write_study"]

TRIALS, EPOCHS = 4, 6


def write_study(path: Path, **changes: Any) -> Path:
    """A study file; `changes` replace parts."""
    search = {"trials": TRIALS, "checkpoint_seconds": 0, **changes.pop("search", {})}
    config = study(**{"workload": f"{FAULTS}:Slow", "epochs": EPOCHS, **changes}, search=search)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    return path


def finish(driver: "Popen[str]") -> str:
    """Wait for the end of a command, which has to be a good one; what it said on standard error."""
    _, err = driver.communicate(timeout=150)
    assert driver.returncode == 0, err
    return err


class Disturbed:
    """A study on a cluster.

    Attributes:
        nodes: the cluster.
        directory: the run directory.
    """

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self.directory = nodes, folder / "run"
        self._file = write_study(folder / "study.yaml")

    def run(self, *options: object) -> AbstractContextManager["Popen[str]"]:
        return self.nodes.started("run", self._file, "--dir", self.directory, "--address", "auto", *options)

    def resume(self) -> AbstractContextManager["Popen[str]"]:
        return self.nodes.started("resume", self.directory, "--address", "auto")

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.directory)

    @property
    def running(self) -> list[int]:
        """Epochs done of each trial that runs, as far as the ledger knows."""
        return [record.epochs for record in self._records if record.outcome is Outcome.RUNNING]

    @property
    def finished(self) -> dict[str, TrialRecord]:
        """The records of the trials that have finished."""
        return {record.trial: record for record in self._records if record.outcome.finished}

    @property
    def trained_again(self) -> dict[str, int]:
        """Epochs that were trained more than once, of each trial that more than one attempt worked on."""
        rows = {record.trial: attempts(self.ledger, record.trial) for record in self._records if record.attempt}
        return {trial: len(each) - len({epoch for _, epoch in each}) for trial, each in rows.items()}

    def await_two_at_work(self, driver: "Popen[str]") -> None:
        """Until two trials have done two epochs."""
        until(lambda: sum(epochs >= 2 for epochs in self.running) == 2, driver)

    def await_middle(self, driver: "Popen[str]") -> None:
        """Until one trial has finished and another has done two epochs."""
        until(lambda: bool(self.finished) and max(self.running, default=0) >= 2, driver)

    def assert_as_if_nothing_had_happened(self, calm: Ledger, before: dict[str, TrialRecord] | None = None) -> None:
        """Each trial has finished once, with the parameters and the curve that it has in the calm study.

        Args:
            calm: ledger of the same study, undisturbed.
            before: records of the trials that had finished before it was resumed.
        """
        records = {record.trial: record for record in self._records}
        assert {name: record.parameters for name, record in records.items()} == {
            record.trial: record.parameters for record in calm.trials()
        }
        assert {record.outcome for record in records.values()} == {Outcome.COMPLETED}
        assert all(epochs(self.ledger, name) == list(range(1, EPOCHS + 1)) for name in records)
        ends = Counter(path.name[:4] for path in (self.directory / "ledger" / "trials").glob("*-completed-*"))
        assert ends == dict.fromkeys(records, 1), "a finished trial was run again"
        assert all(records[name] == record for name, record in (before or {}).items())
        assert all(_curve(self.ledger, name) == _curve(calm, name) for name in records)

    @property
    def _records(self) -> list[TrialRecord]:
        return self.ledger.trials() if (self.directory / "study.json").exists() else []


def _curve(ledger: Ledger, trial: str) -> list[dict[str, float]]:
    """What a trial measured; drift compares with a refresh before, which a checkpoint does not hold."""
    return [
        {name: value for name, value in metrics.items() if not name.endswith("drift")}
        for metrics in measured(ledger, trial)
    ]

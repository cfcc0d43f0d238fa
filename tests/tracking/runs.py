"""What MLflow holds of a study, read independently of the mirror."""

from typing import Any

from mlflow import MlflowClient

from sngd_tune.tracking.ledger import Ledger


class Runs:
    def __init__(self, ledger: Ledger, tracking_uri: str | None = None) -> None:
        self.client = MlflowClient(tracking_uri or f"sqlite:///{ledger.directory.parent}/mlflow.db")
        self.study_id = ledger.manifest.study_id

    def all(self) -> list[Any]:
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, f"tags.`sngd_tune.study_id` = '{self.study_id}'"))

    def parents(self) -> list[Any]:
        return [run for run in self.all() if run.data.tags["role"] == "study"]

    def parent(self) -> Any:
        (run,) = self.parents()
        return run

    def trials(self) -> dict[str, Any]:
        runs = [run for run in self.all() if run.data.tags["role"] == "trial"]
        by_trial = {run.data.tags["sngd_tune.trial"]: run for run in runs}
        assert len(by_trial) == len(runs), "two runs for one trial"
        return by_trial

    def steps(self, trial: str, metric: str = "epoch") -> list[int]:
        """Every stored point, doubles included."""
        history = self.client.get_metric_history(self.trials()[trial].info.run_id, metric)
        return [point.step for point in history]


def assert_mirrors(ledger: Ledger, tracking_uri: str | None = None) -> None:
    """MLflow has each record of the ledger exactly once."""
    runs = Runs(ledger, tracking_uri)
    trials = runs.trials()
    assert set(trials) == {record.trial for record in ledger.trials()}
    for record in ledger.trials():
        expected = [metrics.epoch for _, _, metrics in ledger.epoch_metrics(record.trial)]
        assert runs.steps(record.trial) == expected
        assert runs.steps(record.trial, "curves/validation_loss") == expected
        assert trials[record.trial].data.tags["outcome"] == record.outcome
        assert trials[record.trial].data.tags["mlflow.parentRunId"] == runs.parent().info.run_id

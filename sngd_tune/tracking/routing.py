"""One run of Tune whose trials belong to several studies: each is recorded in its own ledger."""

from collections.abc import Mapping
from typing import Any

from sngd_tune.errors import LedgerError
from sngd_tune.records.outcome import Outcome
from sngd_tune.tracking.callback import LedgerCallback, Recorder, RunsAgain

__all__ = ["RoutingCallback"]


class RoutingCallback(Recorder):
    """Hands what happens to a trial to the recorder of the study that ``trial.config["study"]`` names.

    Args:
        recorders: by name of the study.
    """

    def __init__(self, recorders: Mapping[str, LedgerCallback]) -> None:
        self._recorders = dict(recorders)

    @property
    def failure(self) -> LedgerError | None:  # type: ignore[override]  # computed here, kept there
        """The first failure of any."""
        return next((each.failure for each in self._recorders.values() if each.failure is not None), None)

    def ask(self, runs_again: RunsAgain) -> None:
        for recorder in self._recorders.values():
            recorder.ask(runs_again)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._of(trial).on_trial_start(iteration, trials, trial, **info)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self._of(trial).on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._of(trial).on_trial_complete(iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._of(trial).on_trial_error(iteration, trials, trial, **info)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for recorder in self._recorders.values():
            recorder.on_step_end(iteration, trials, **info)

    def close(self, outcome: Outcome) -> None:
        for recorder in self._recorders.values():
            recorder.close(outcome)

    def _of(self, trial: Any) -> LedgerCallback:
        return self._recorders[trial.config["study"]]

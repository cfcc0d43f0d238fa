"""`DriverStudy`: Optuna's study as one driver sees it, which may share it with others."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sngd_tune.search.study_storage import StoredStudy

__all__ = ["DriverStudy"]

#: What each trial carries: whose it is, and its name and number in the ledger of that driver.
_DRIVER, _TRIAL, _NUMBER = "sngd_tune.driver", "sngd_tune.trial", "sngd_tune.number"


class DriverStudy(optuna.Study):
    """A study in which this driver begins trials of its own and sees those of all.

    Attributes:
        exhausted: whether the sampler has said that nothing is left; Optuna allows that inside `optimize` only.
    """

    exhausted = False

    def __init__(self, stored: StoredStudy) -> None:
        super().__init__(stored.name, stored.storage)
        self._driver = stored.driver

    def stop(self) -> None:
        self.exhausted = True

    def begin(self, trial: str, number: int, given: Mapping[str, Any]) -> optuna.Trial:
        """A trial that runs from now on.

        `enqueue_trial` and `ask` would make it in two steps, between which any driver may take it, and name it in a
        third: a driver that is killed there leaves a running trial that is nobody's.

        Args:
            trial: its name in the ledger.
            number: its number there.
            given: values by Optuna's name that are taken as they are; the sampler chooses the others.
        """
        template = create_trial(
            state=TrialState.RUNNING,
            user_attrs=self._attributes(trial, number),
            system_attrs={"fixed_params": dict(given)} if given else {},
        )
        self._thread_local.cached_all_trials = None  # as `ask` does: what other drivers have told counts
        return optuna.Trial(self, self._storage.create_new_trial(self._study_id, template_trial=template))

    def own(self) -> list[FrozenTrial]:
        """The trials of this driver, of earlier runs as well."""
        return [trial for trial in self.get_trials(deepcopy=False) if trial.user_attrs.get(_DRIVER) == self._driver]

    def has_elsewhere(self, number: int) -> bool:
        """Whether another driver has a trial of that number that has not failed."""
        return any(
            trial.user_attrs.get(_NUMBER) == number and trial.state is not TrialState.FAIL
            for trial in self.get_trials(deepcopy=False)
            if trial.user_attrs.get(_DRIVER) != self._driver
        )

    def fail_running(self) -> None:
        """Tell FAIL for every trial of this driver that is still RUNNING; those of others are left alone."""
        for trial in self.own():
            if trial.state is TrialState.RUNNING:
                self.tell(trial.number, state=TrialState.FAIL)

    def ended(self) -> set[tuple[str, TrialState]]:
        """Names of this driver's trials that have ended, with how: a trial that was run again may have several ends."""
        return {(trial.user_attrs[_TRIAL], trial.state) for trial in self.own() if trial.state.is_finished()}

    def add(self, trial: str, number: int, ended: FrozenTrial) -> None:
        """Add a trial that has ended, of which the study does not know."""
        for key, value in self._attributes(trial, number).items():
            ended.set_user_attr(key, value)
        self.add_trial(ended)

    def _attributes(self, trial: str, number: int) -> dict[str, Any]:
        return {_DRIVER: self._driver, _TRIAL: trial, _NUMBER: number}

"""Ray Tune's side of the search: proposals go out, the truth about each trial goes back to Optuna.

Ray's own `OptunaSearch` leaves a trial with a NaN objective RUNNING for ever and tells one that the scheduler stopped
as COMPLETE, so that one-epoch losses enter the sampler as final ones. Hence this searcher on Optuna's ask and tell:

================================================  ====================================
what happened                                     what Optuna hears
================================================  ====================================
last result says ``outcome: completed``           COMPLETE with the objectives
objective missing, NaN or infinite                FAIL
outcome diverged, out of memory, error, lost      FAIL
raised, or its process died once too often        FAIL
stopped by the scheduler after some epochs        PRUNED with the last value
stopped before its first result                   FAIL
the study ended first (`StudySearcher.close`)     FAIL
================================================  ====================================

The study lives in memory. The ledger is the source of truth: a resumed study gives its trials back as `PastTrial`s,
and `ray.tune.Tuner.restore` is never used, so saving and restoring a searcher do nothing.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from sngd_tune.records.metrics import OBJECTIVES
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.memory import quiet_storage
from sngd_tune.search.samplers import continue_sequence, make_sampler
from sngd_tune.search.seeds import derive_seed
from sngd_tune.search.space import SearchSpace

__all__ = ["ListSearcher", "StudySearcher"]


class _AskTellStudy(optuna.Study):
    """A study whose sampler may say that nothing is left; Optuna allows that inside `optimize` only."""

    exhausted = False

    def stop(self) -> None:
        self.exhausted = True


@dataclass(frozen=True)
class _LiveTrial:
    """A trial that Tune runs, and the epochs it has reported."""

    trial: optuna.Trial
    reported: set[int] = field(default_factory=set)


class _StatelessSearcher(Searcher):
    """A searcher that Tune may save as often as it likes: there is nothing to keep."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Metric and mode come from the study; what Tune was given is the same or nothing."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds the trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed study begins with the ledger's trials."""


class StudySearcher(_StatelessSearcher):
    """Proposes the trials of a study and tells Optuna how they ended.

    Tune configs are ``{"trial": "0007", "number": 7, "phase": "search", "candidate": "", "parameters": {...},
    "seed": ..., "resume_from": path or None}``. The trainable reports flat results with ``epoch`` (from 1),
    ``outcome`` (`Outcome`, ``running`` until the last one) and the study's objectives.

    Args:
        config: the study.
        past: trials of earlier runs of the same study. Finished ones become history; interrupted ones are proposed
            first, under their own name, number, parameters and seed.

    Raises:
        ConfigurationError: the study's space breaks a rule.
    """

    def __init__(self, config: StudyConfig, past: Sequence[PastTrial] = ()) -> None:
        super().__init__()
        self.space = SearchSpace(config)
        self._config = config
        self._live: dict[str, _LiveTrial] = {}
        directions = [OBJECTIVES[name] for name in config.objectives]
        self._study = _AskTellStudy(config.name, quiet_storage(config.name, directions))
        self._interrupted = deque(
            sorted((trial for trial in past if not trial.outcome.finished), key=lambda trial: trial.number)
        )
        # Tune may start a later proposal first; one that had not started when the run ended is made again.
        self._taken = {trial.number for trial in past}
        self._next_number = self._first_free(0)
        self._proposals_left = config.search.trials - len(past)
        self._replay([trial for trial in past if trial.outcome.finished])

    @property
    def study(self) -> optuna.Study:
        """Optuna's study, in memory."""
        return self._study

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a word
        """The next trial's config; `Searcher.FINISHED` once the study's trials, or the space's points, are out."""
        if self._interrupted:
            past = self._interrupted.popleft()
            self._live[trial_id] = _LiveTrial(self._ask(past.number, past.parameters)[0])
            return _tune_config(past.trial, past.number, past.parameters, past.seed, past.checkpoint)
        if self._proposals_left <= 0 or self._study.exhausted:
            return Searcher.FINISHED
        number = self._next_number
        start = self.space.start_points()
        trial, parameters = self._ask(number, start[number] if number < len(start) else {})
        self._live[trial_id] = _LiveTrial(trial)
        self._next_number = self._first_free(number + 1)
        self._proposals_left -= 1
        seed = derive_seed(self._config.search.seed, "training")
        return _tune_config(f"{number:04d}", number, parameters, seed, None)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note the first objective of an epoch; a retried trial may repeat epochs."""
        live = self._live.get(trial_id)
        if live is None or len(self._config.objectives) > 1:
            return
        epoch, value = result.get("epoch"), _finite(result.get(self._config.objectives[0]))
        if isinstance(epoch, int) and value is not None and epoch not in live.reported:
            live.reported.add(epoch)
            live.trial.report(value, epoch)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended, by the table above."""
        if trial_id not in self._live:
            return
        result = result or {}
        self.on_trial_result(trial_id, result)
        outcome = Outcome.LOST if error else Outcome(result.get("outcome", Outcome.RUNNING))
        state, values = _verdict(outcome, [result.get(name) for name in self._config.objectives])
        self._study.tell(self._live.pop(trial_id).trial, values, state=state)

    def close(self) -> None:
        """End of the run: tell every trial still running FAIL, so that none stays RUNNING."""
        for live in self._live.values():
            self._study.tell(live.trial, state=TrialState.FAIL)
        self._live.clear()

    def _first_free(self, start: int) -> int:
        """The first number from `start` on that no trial of an earlier run has."""
        return next(number for number in count(start) if number not in self._taken)

    def _ask(self, number: int, given: Mapping[str, Any]) -> tuple[optuna.Trial, dict[str, Any]]:
        """An Optuna trial with its flat parameters; those given are taken, the rest is sampled."""
        self._study.sampler = self._sampler(number)
        if given:
            self._study.enqueue_trial(self.space.labelled(given))
        trial = self._study.ask()
        return trial, self.space.suggest(trial)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        search = self._config.search
        return make_sampler(
            search.sampler, seed=search.seed, trial_number=number, n_objectives=len(self._config.objectives)
        )

    def _replay(self, past: Sequence[PastTrial]) -> None:
        """Give Optuna the history, in the order of numbers, and the sampler what it would have noted on the way."""
        for trial in sorted(past, key=lambda trial: trial.number):
            self._study.add_trial(self._frozen(trial))
        trials = self._study.get_trials(deepcopy=False)
        if trials:
            sampler = self._sampler(self._next_number)
            continue_sequence(sampler, self._study, trials)
            sampler.after_trial(self._study, trials[-1], trials[-1].state, trials[-1].values)

    def _frozen(self, past: PastTrial) -> FrozenTrial:
        single = len(self._config.objectives) == 1
        intermediate = {epoch: value for epoch, value in sorted(past.intermediate.items()) if math.isfinite(value)}
        reached: Sequence[float] = list(intermediate.values())[-1:] if single else ()
        wanted = past.values if past.outcome is Outcome.COMPLETED else reached
        state, values = _verdict(past.outcome, wanted or [None])
        labelled = self.space.labelled(past.parameters)
        distributions = self.space.distributions(past.parameters)
        return optuna.create_trial(
            state=state,
            values=list(reached) or None if state is TrialState.PRUNED else values,
            params=labelled,
            distributions={label: distributions[label] for label in labelled},
            intermediate_values=intermediate if single else {},
        )


class ListSearcher(_StatelessSearcher):
    """Proposes given Tune configs, in order: confirmations, whose parameters are known.

    Args:
        configs: what `suggest` hands out.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._waiting = deque(dict(config) for config in configs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a word
        """The next config, then `Searcher.FINISHED`."""
        return self._waiting.popleft() if self._waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from a confirmation."""


def _tune_config(
    trial: str, number: int, parameters: Mapping[str, Any], seed: int, resume_from: str | None
) -> dict[str, Any]:
    return {
        "trial": trial,
        "number": number,
        "phase": "search",
        "candidate": "",
        "parameters": dict(parameters),
        "seed": seed,
        "resume_from": resume_from,
    }


def _verdict(outcome: Outcome, objectives: Sequence[Any]) -> tuple[TrialState, list[float] | None]:
    """The table at the top: Optuna's state, and the values that go with COMPLETE."""
    values = [value for value in map(_finite, objectives) if value is not None]
    if len(values) < len(objectives):
        return TrialState.FAIL, None
    if outcome is Outcome.COMPLETED:
        return TrialState.COMPLETE, values
    stopped = outcome in (Outcome.RUNNING, Outcome.STOPPED_EARLY)
    return (TrialState.PRUNED if stopped else TrialState.FAIL), None


def _finite(value: object) -> float | None:
    """The value as a finite float, or None."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None  # type: ignore[arg-type]

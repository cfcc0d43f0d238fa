"""Ray Tune's side of the search: proposals go out, the truth about each trial goes back to Optuna.

Ray's own `OptunaSearch` leaves a trial with a NaN objective RUNNING for ever and tells one that the scheduler stopped
as COMPLETE, so that one-epoch losses enter the sampler as final ones. Hence this searcher on Optuna's ask and tell;
what Optuna hears is said in `search.verdict`.

The ledger is the source of truth: a resumed study gives its trials back as `PastTrial`s, of which Optuna's storage may
have none (memory) or most, and `ray.tune.Tuner.restore` is never used, so saving and restoring a searcher do nothing.
Where a storage goes away for good, the trials that run come to their end and no new one is proposed.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import optuna

from sngd_tune.errors import StudyStorageError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.driver_study import DriverStudy
from sngd_tune.search.retries import RetryingSearcher
from sngd_tune.search.samplers import continue_sequence, make_sampler
from sngd_tune.search.seeds import derive_seed
from sngd_tune.search.space import SearchSpace
from sngd_tune.search.study_storage import StoredStudy, in_memory
from sngd_tune.search.verdict import ended_trial, finite, verdict

__all__ = ["ListSearcher", "StudySearcher"]


@dataclass(frozen=True)
class _LiveTrial:
    """A trial that Tune runs, and the epochs it has reported."""

    trial: optuna.Trial
    reported: set[int] = field(default_factory=set)


class StudySearcher(RetryingSearcher):
    """Proposes the trials of a study and tells Optuna how they ended.

    Tune configs are ``{"trial": "0007", "number": 7, "phase": "search", "candidate": "", "parameters": {...},
    "seed": ..., "attempt": 0, "resume": False, "epochs_known": 0}``. The trainable reports flat results with ``epoch``
    (from 1), ``outcome`` (`Outcome`, ``running`` until the last one) and the study's objectives.

    Args:
        config: the study.
        past: trials of earlier runs of the same study. Finished ones become history; interrupted ones are proposed
            first, under their own name, number, parameters and seed.
        stored: Optuna's study, which other drivers may share; None: one in memory.

    Attributes:
        failure: why Optuna's storage cannot be used any more, if it went away; the ledger has what it lacks.

    Raises:
        ConfigurationError: the study's space breaks a rule.
    """

    failure: StudyStorageError | None = None

    def __init__(self, config: StudyConfig, past: Sequence[PastTrial] = (), stored: StoredStudy | None = None) -> None:
        super().__init__(config.search.max_retries)
        self.space = SearchSpace(config)
        self._config = config
        self._live: dict[str, _LiveTrial] = {}  # by name
        stored = stored or in_memory(config)
        self._study = DriverStudy(stored)
        self._shared = stored.shared
        # Drivers of one seed would sample the same points.
        self._seed = derive_seed(config.search.seed, stored.driver) if stored.shared else config.search.seed
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
        """Optuna's study."""
        return self._study

    def propose(self) -> dict[str, Any] | None:
        """The next trial's config; None once the study's trials, or the space's points, are out."""
        with self._while_stored() as stored:
            if stored and self._interrupted:
                return self._propose_again(self._interrupted.popleft())
            if stored and self._proposals_left > 0 and not self._study.exhausted:
                return self._propose_new()
        return None

    def observe(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Tell Optuna the first objective of an epoch."""
        if len(self._config.objectives) > 1:
            return
        live = self._live[config["trial"]]
        epoch, value = result.get("epoch"), finite(result.get(self._config.objectives[0]))
        with self._while_stored() as stored:
            if stored and isinstance(epoch, int) and value is not None and epoch not in live.reported:
                live.reported.add(epoch)
                live.trial.report(value, epoch)

    def conclude(self, config: Mapping[str, Any], outcome: Outcome, result: Mapping[str, Any]) -> None:
        """Tell Optuna how a trial ended."""
        state, values = verdict(outcome, [result.get(name) for name in self._config.objectives])
        live = self._live.pop(config["trial"])
        with self._while_stored() as stored:
            if stored:
                self._study.tell(live.trial, values, state=state)

    def close(self) -> None:
        """End of the run: tell every trial still running FAIL, so that none stays RUNNING."""
        with self._while_stored() as stored:
            if stored:
                self._study.fail_running()
        self._live.clear()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher, and nothing is ever restored from that copy: it need not know any password.
        return {}

    @contextmanager
    def _while_stored(self) -> Iterator[bool]:
        """Whether Optuna's storage is still there; where it goes away meanwhile, that is noted."""
        try:
            yield self.failure is None
        except StudyStorageError as error:
            self.failure = error

    def _propose_again(self, past: PastTrial) -> dict[str, Any]:
        """An interrupted trial."""
        asked = self._ask(past.trial, past.number, past.parameters)
        return self._begin(past.trial, past.number, asked, past.seed, past)

    def _propose_new(self) -> dict[str, Any]:
        """A starting point, or what the sampler proposes."""
        number = self._next_number
        trial = f"{number:04d}"
        asked = self._ask(trial, number, self._start(number))
        self._next_number = self._first_free(number + 1)
        self._proposals_left -= 1
        return self._begin(trial, number, asked, derive_seed(self._config.search.seed, "training"))

    def _start(self, number: int) -> dict[str, Any]:
        """The starting point of that number, unless there is none, or another driver has trained it."""
        start = self.space.start_points()
        if number >= len(start) or (self._shared and self._study.has_elsewhere(number)):
            return {}
        return start[number]

    def _first_free(self, start: int) -> int:
        """The first number from `start` on that no trial of an earlier run has."""
        return next(number for number in count(start) if number not in self._taken)

    def _begin(
        self,
        trial: str,
        number: int,
        asked: tuple[optuna.Trial, dict[str, Any]],
        seed: int,
        past: PastTrial | None = None,
    ) -> dict[str, Any]:
        """The Tune config of a trial that is under way from now on."""
        self._live[trial] = _LiveTrial(asked[0])
        return {
            "study": self._config.name,
            "trial": trial,
            "number": number,
            "phase": "search",
            "candidate": "",
            "parameters": dict(past.parameters if past else asked[1]),
            "seed": seed,
            "attempt": past.attempt + 1 if past else 0,
            "resume": past is not None,
            "epochs_known": past.epochs if past else 0,
        }

    def _ask(self, trial: str, number: int, given: Mapping[str, Any]) -> tuple[optuna.Trial, dict[str, Any]]:
        """An Optuna trial with its flat parameters; those given are taken, the rest is sampled."""
        self._study.sampler = self._sampler(number)
        asked = self._study.begin(trial, number, self.space.labelled(given) if given else {})
        return asked, self.space.suggest(asked)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        objectives = len(self._config.objectives)
        return make_sampler(self._config.search.sampler, seed=self._seed, trial_number=number, n_objectives=objectives)

    def _replay(self, past: Sequence[PastTrial]) -> None:
        """Give Optuna what it lacks of the history, in order of numbers, and the sampler what it would have noted."""
        known = self._study.ended()  # by a storage that outlives the process, and keeps a sequence's place as well
        self._study.fail_running()
        for trial in sorted(past, key=lambda trial: trial.number):
            frozen = ended_trial(trial, self.space, len(self._config.objectives))
            if (trial.trial, frozen.state) not in known:
                self._study.add(trial.trial, trial.number, frozen)
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
        if trials:
            sampler = self._sampler(self._next_number)
            if not known:
                continue_sequence(sampler, self._study, trials)
            sampler.after_trial(self._study, trials[-1], trials[-1].state, trials[-1].values)


class ListSearcher(RetryingSearcher):
    """Proposes given Tune configs, in order: confirmations, whose parameters are known.

    Args:
        configs: what is proposed.
        max_retries: of a trial that was lost.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]], max_retries: int) -> None:
        super().__init__(max_retries)
        self._waiting = deque(dict(config) for config in configs)

    def propose(self) -> dict[str, Any] | None:
        """The next config."""
        return self._waiting.popleft() if self._waiting else None

"""Several seeds of each proposal: every training is a trial of its own, Optuna hears of the proposal once.

=============================================  ===========================================
how its trainings ended                        what Optuna hears of the proposal
=============================================  ===========================================
all completed                                  COMPLETE with the means of the objectives
one failed, whatever the others did            FAIL
one was stopped by the scheduler, none failed  PRUNED with the mean at the last joint epoch
=============================================  ===========================================

The scheduler sees each training by itself. After an interruption those that had not ended run again, and no other.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from sngd_tune.errors import StudyStorageError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.proposals import joint_mean, joint_outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.retries import RetryingSearcher
from sngd_tune.search.searcher import StudySearcher
from sngd_tune.search.seeds import derive_seed
from sngd_tune.search.study_storage import StoredStudy

__all__ = ["RepeatingSearcher", "joined", "make_searcher"]


def make_searcher(
    config: StudyConfig, past: Sequence[PastTrial] = (), stored: StoredStudy | None = None
) -> "StudySearcher | RepeatingSearcher":
    """The searcher of a study, which trains each proposal on so many seeds.

    Args:
        config: the study.
        past: trainings of earlier runs.
        stored: Optuna's study; None: one in memory.

    Raises:
        ConfigurationError: the study's space breaks a rule.
    """
    searcher = StudySearcher(config, joined(past, config.search.seeds), stored)
    return searcher if config.search.seeds == 1 else RepeatingSearcher(searcher, config, past)


def joined(past: Sequence[PastTrial], seeds: int) -> list[PastTrial]:
    """The proposals of earlier runs, given their trainings; one that lacks a training is an interrupted one."""
    if seeds == 1:
        return list(past)
    grouped: dict[int, list[PastTrial]] = {}
    for trial in past:
        grouped.setdefault(trial.number, []).append(trial)
    return [_joined(group, seeds) for group in grouped.values()]


@dataclass
class _Proposal:
    """A proposal under way: its Tune config, and what each training has said so far."""

    config: Mapping[str, Any]
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    ends: dict[str, tuple[Outcome, Mapping[str, Any]]] = field(default_factory=dict)


class RepeatingSearcher(RetryingSearcher):
    """Trains each proposal of a study's searcher on several seeds: ``0007`` as ``0007.0``, ``0007.1`` and so on.

    Args:
        searcher: proposes, and tells Optuna.
        config: the study.
        past: trainings of earlier runs.
    """

    def __init__(self, searcher: StudySearcher, config: StudyConfig, past: Sequence[PastTrial] = ()) -> None:
        super().__init__(config.search.max_retries)
        self._searcher = searcher
        self._config = config
        self._past = {trial.trial: trial for trial in past}
        self._waiting: deque[dict[str, Any]] = deque()
        self._open: dict[int, _Proposal] = {}  # by number

    @property
    def study(self) -> optuna.Study:
        """Optuna's study."""
        return self._searcher.study

    @property
    def failure(self) -> StudyStorageError | None:
        """As of `StudySearcher`."""
        return self._searcher.failure

    def propose(self) -> dict[str, Any] | None:
        """The next training of a proposal, or the first of the next one."""
        if not self._waiting:
            proposed = self._searcher.propose()
            if proposed is None:
                return None
            self._waiting.extend(self._trainings(proposed))
        return self._waiting.popleft()

    def observe(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Pass on the mean of an epoch, once all trainings have reported it."""
        proposal, objective = self._open[config["number"]], self._config.objectives[0]
        epoch, value = result.get("epoch"), result.get(objective)
        if not isinstance(epoch, int) or not isinstance(value, int | float):
            return
        proposal.curves.setdefault(config["trial"], {})[epoch] = value
        if len(proposal.curves) == self._config.search.seeds:
            mean = joint_mean([curve.get(epoch) for curve in proposal.curves.values()])
            self._searcher.observe(proposal.config, {"epoch": epoch, objective: mean})

    def conclude(self, config: Mapping[str, Any], outcome: Outcome, result: Mapping[str, Any]) -> None:
        """Keep the end of a training; the last one concludes the proposal."""
        # Without a word of its own it was stopped from outside.
        ended = Outcome.STOPPED_EARLY if outcome is Outcome.RUNNING else outcome
        ends = self._open[config["number"]].ends
        ends[config["trial"]] = ended, result
        if len(ends) == self._config.search.seeds:
            proposal = self._open.pop(config["number"])
            means = {
                name: joint_mean([last.get(name) for _, last in ends.values()]) for name in self._config.objectives
            }
            self._searcher.conclude(proposal.config, joint_outcome([each for each, _ in ends.values()]), means)

    def close(self) -> None:
        """As of `StudySearcher`: a proposal that lacks a training says nothing."""
        self._searcher.close()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as `StudySearcher`

    def _trainings(self, proposed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The trainings of a proposal that are still to run; what earlier runs have of it counts."""
        proposal = self._open[proposed["number"]] = _Proposal(proposed)
        for index in range(self._config.search.seeds):
            trial = f"{proposed['trial']}.{index}"
            before = self._past.get(trial)
            if before is not None and before.outcome.finished:
                proposal.curves[trial] = dict(before.intermediate)
                proposal.ends[trial] = before.outcome, _last(before, self._config.objectives)
            else:
                yield {
                    **proposed,
                    "trial": trial,
                    "seed": derive_seed(self._config.search.seed, "training", index),
                    "attempt": before.attempt + 1 if before else 0,
                    "resume": before is not None,
                    "epochs_known": before.epochs if before else 0,
                }


def _last(past: PastTrial, objectives: Sequence[str]) -> dict[str, float]:
    """The last result of a training that has ended, as far as the ledger has it."""
    if past.values is not None:
        return dict(zip(objectives, past.values, strict=True))
    return {objectives[0]: past.intermediate[max(past.intermediate)]} if past.intermediate else {}


def _joined(group: Sequence[PastTrial], seeds: int) -> PastTrial:
    first = min(group, key=lambda trial: trial.trial)
    common = set.intersection(*(set(trial.intermediate) for trial in group))
    means = {epoch: joint_mean([trial.intermediate[epoch] for trial in group]) for epoch in sorted(common)}
    outcome = joint_outcome([trial.outcome for trial in group]) if len(group) == seeds else Outcome.INTERRUPTED
    values = [trial.values for trial in group if trial.values is not None]
    found = tuple(joint_mean(each) for each in zip(*values, strict=True)) if len(values) == seeds else ()
    return PastTrial(
        trial=first.trial.partition(".")[0],
        number=first.number,
        parameters=first.parameters,
        seed=first.seed,
        outcome=outcome,
        values=tuple(value for value in found if value is not None) or None,
        intermediate={epoch: value for epoch, value in means.items() if value is not None},
    )

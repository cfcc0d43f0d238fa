"""Trials that are one proposal: with ``search.seeds: 3``, ``0007.0``, ``0007.1`` and ``0007.2`` have the same settings.

A proposal is worth the mean over its trainings, and only where all of them completed; a lucky seed cannot win.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from sngd_tune.records.energy import total
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["joint_mean", "joint_outcome", "proposals"]


def proposals(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The search trials with the trainings of each proposal as one record, in the order of numbers.

    Objectives are means, times are those of all trainings together. A proposal has as many trainings as any: one that
    has fewer is still under way.

    Args:
        records: the latest state of each trial; confirmations are left out.
    """
    grouped: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: (record.number, record.trial)):
        if record.phase == "search":
            grouped.setdefault(record.proposal, []).append(record)
    trainings = max(map(len, grouped.values()), default=1)
    return [_joined(name, group, trainings) for name, group in grouped.items()] if trainings > 1 else _only(grouped)


def joint_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Of a proposal: what keeps it open, else its first failure, else that a training was stopped, else COMPLETED.

    >>> joint_outcome([Outcome.COMPLETED, Outcome.DIVERGED, Outcome.STOPPED_EARLY])
    <Outcome.DIVERGED: 'diverged'>
    """
    for telling in (lambda each: not each.finished, lambda each: each.failed, Outcome.STOPPED_EARLY.__eq__):
        found = next(filter(telling, outcomes), None)
        if found is not None:
            return found
    return Outcome.COMPLETED


def joint_mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is missing or not finite, as such a training says nothing.

    >>> joint_mean([0.25, 0.75]), joint_mean([0.25, None]), joint_mean([0.25, math.inf])
    (0.5, None, None)
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known and len(known) == len(values) else None


def _only(grouped: dict[str, list[TrialRecord]]) -> list[TrialRecord]:
    return [record for group in grouped.values() for record in group]


def _joined(name: str, group: Sequence[TrialRecord], trainings: int) -> TrialRecord:
    ended = [record.ended for record in group if record.ended is not None]
    whole = len(group) == trainings
    energy = total(record.energy for record in group)
    return dataclasses.replace(
        group[0],
        trial=name,
        outcome=joint_outcome([record.outcome for record in group] if whole else [Outcome.RUNNING]),
        epochs=max(record.epochs for record in group),
        objectives={key: joint_mean([each.objectives.get(key) for each in group]) for key in group[0].objectives},
        training_seconds=sum(record.training_seconds for record in group),
        energy_joules=None if energy is None else energy.joules,
        energy_source=None if energy is None else energy.source,
        started=min(record.started for record in group),
        updated=max(record.updated for record in group),
        ended=max(ended) if whole and len(ended) == trainings else None,
    )

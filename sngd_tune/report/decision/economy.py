"""What a training, a month of trainings and a cycle of tuning take with the candidate and with a baseline."""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Literal

from sngd_tune.energy.cost import Amounts, Usage, saved
from sngd_tune.records.energy import Energy, total
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.comparison.runs import MethodResults, reach, search_trials, timed_runs
from sngd_tune.report.decision.savings import savings
from sngd_tune.report.decision.values import Economy, Terms

__all__ = ["devices", "economy"]

_WEEK = 7 * 24 * 3600.0

#: Of one training to the target, by seed; None: it missed.
_Trainings = Mapping[int, Usage | None]


def economy(own: MethodResults, baseline: MethodResults, target: Target, terms: Terms) -> Economy:
    """The savings of one workload.

    Args:
        own: the candidate's trainings.
        baseline: those of the best baseline.
        target: of both.
        terms: prices and rate.
    """
    trainings, others = _trainings(own, target), _trainings(baseline, target)
    state = _energy_state([*trainings.values(), *others.values()])
    if state in ("unknown", "mixed"):
        trainings, others = _without_energy(trainings), _without_energy(others)
    typical, other = _typical(trainings), _typical(others)
    saving = savings(trainings, others, terms.prices) if typical and other else None
    tuning, instead, rate = _tuning(own), _tuning(baseline), terms.trainings_per_month
    month = saving.each_month(rate) if saving and rate is not None else (None, None)
    again = saving.pays_back(_more(tuning, _nothing(tuning), terms)) if saving else (None, None)
    return Economy(
        obstacle="missed" if typical is None else "baseline_missed" if other is None else None,
        training=typical,
        baseline_training=other,
        tuning=tuning,
        baseline_tuning=instead,
        energy=state,
        saved=saving.typical if saving else None,
        saved_interval=saving.interval if saving else None,
        shown=saving.shown if saving else (),
        saved_per_month=month[0],
        saved_per_month_interval=month[1],
        break_even=again[0],
        break_even_interval=again[1],
        break_even_extra=saving.pays_back(_more(tuning, instead, terms))[0] if saving else None,
        never=tuple(name for name, value in vars(again[0]).items() if value == math.inf) if again[0] else (),
        cycles_per_week=_cycles(own, target),
        baseline_cycles_per_week=_cycles(baseline, target),
    )


def devices(config: StudyConfig) -> float:
    """Devices of one training: its GPUs, of which a share counts as that; without any, its worker processes."""
    resources = config.search.resources
    each = resources.gpus if isinstance(resources.gpus, float) and resources.gpus > 0 else 1.0
    return resources.workers * each


def _trainings(side: MethodResults, target: Target) -> dict[int, Usage | None]:
    """Up to the target; a training that failed has missed it."""
    found: dict[int, Usage | None] = {}
    for record in timed_runs(side, target):
        at = None if record.outcome.failed else target.first_reached(side.epochs.get(record.trial, ()))
        seconds = devices(side.config) * at.training_seconds if at else math.inf
        found[record.seed] = Usage(seconds=seconds, energy=at.energy) if at else None
    return found


def _without_energy(trainings: _Trainings) -> dict[int, Usage | None]:
    return {seed: each and Usage(seconds=each.seconds) for seed, each in trainings.items()}


def _typical(trainings: _Trainings) -> Usage | None:
    """Medians over the seeds with misses as infinite; None where the median misses."""
    seconds = statistics.median(each.seconds if each else math.inf for each in trainings.values() or [None])
    if math.isinf(seconds):
        return None
    energies = [each.energy if each else None for each in trainings.values()]
    known = [each for each in energies if each is not None]
    if len(known) < sum(each is not None for each in trainings.values()):
        return Usage(seconds=seconds)
    joules = statistics.median(each.joules if each else math.inf for each in energies)
    return Usage(seconds=seconds, energy=Energy(joules, known[0].source))


def _energy_state(trainings: Iterable[Usage | None]) -> Literal["measured", "estimated", "unknown", "mixed"]:
    energies = [each.energy for each in trainings if each is not None]
    known = [each for each in energies if each is not None]
    if not known or len(known) < len(energies):
        return "unknown"
    if len({each.source for each in known}) > 1:
        return "mixed"
    return "measured" if known[0].measured else "estimated"


def _tuning(side: MethodResults) -> Usage:
    """All trainings of both phases, and what of them was lost and trained again."""
    trained = [record for record in side.trials if record.training_seconds > 0]
    lost = side.attempts.lost
    seconds = sum(record.training_seconds for record in trained) + sum(each.seconds for each in lost)
    energies = [*(record.energy for record in trained), *(each.energy for each in lost)]
    return Usage(seconds=devices(side.config) * seconds, energy=total(energies))


def _nothing(usage: Usage) -> Usage:
    """No tuning at all, with energy known where the other's is."""
    return Usage(seconds=0.0, energy=Energy(0.0, usage.energy.source) if usage.energy else None)


def _more(tuning: Usage, instead: Usage, terms: Terms) -> Amounts:
    """What the other tuning uses less."""
    return saved(tuning, instead, terms.prices)


def _cycles(side: MethodResults, target: Target) -> float | None:
    """Per week and device, if every training ended at the target; None where nothing was trained."""
    records = [*search_trials(side), *timed_runs(side, target)]
    seconds = devices(side.config) * sum(_to_its_end(record, side, target) for record in records)
    return _WEEK / seconds if seconds > 0 else None


def _to_its_end(record: TrialRecord, side: MethodResults, target: Target) -> float:
    return min(reach(record, side.epochs.get(record.trial, ()), target).seconds, record.training_seconds)

"""What a training, a month of trainings and a cycle of tuning take with the candidate and with a baseline."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from sngd_tune.energy.cost import Amounts, Usage, payback, per_month, saved
from sngd_tune.records.energy import Energy, total
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.comparison.ratios import Ratio, paired_ratio
from sngd_tune.report.comparison.runs import MethodResults, reach, search_trials, timed_runs
from sngd_tune.report.decision.values import Economy, Terms

__all__ = ["devices", "economy"]

_WEEK = 7 * 24 * 3600.0


def economy(own: MethodResults, baseline: MethodResults, target: Target, ratio: Ratio | None, terms: Terms) -> Economy:
    """The savings of one workload.

    Args:
        own: the candidate's trainings.
        baseline: those of the best baseline.
        target: of both.
        ratio: of their times; None without a pair.
        terms: prices and rate.
    """
    sides = (own, baseline)
    trainings = [_training(side, target) for side in sides]
    tunings = [_tuning(side) for side in sides]
    both = (trainings[0], trainings[1]) if trainings[0] is not None and trainings[1] is not None else None
    amounts = saved(both[1], both[0], terms.prices) if both else None
    rate = terms.trainings_per_month
    again = _payback(tunings[0], _nothing(tunings[0]), both, terms)
    return Economy(
        obstacle="missed" if trainings[0] is None else "baseline_missed" if trainings[1] is None else None,
        proven=_proven(ratio),
        energy_proven=_proven(_energy_ratio(sides, target)),
        training=trainings[0],
        baseline_training=trainings[1],
        tuning=tunings[0],
        baseline_tuning=tunings[1],
        energy=_energy_state(sides, target),
        saved=amounts,
        saved_per_month=per_month(amounts, rate) if amounts is not None and rate is not None else None,
        break_even=again,
        break_even_extra=_payback(tunings[0], tunings[1], both, terms),
        never=tuple(name for name, value in vars(again).items() if value == math.inf) if again else (),
        cycles_per_week=_cycles(own, target),
        baseline_cycles_per_week=_cycles(baseline, target),
    )


def devices(config: StudyConfig) -> float:
    """Devices of one training: its GPUs, of which a share counts as that; without any, its worker processes."""
    resources = config.search.resources
    each = resources.gpus if isinstance(resources.gpus, float) and resources.gpus > 0 else 1.0
    return resources.workers * each


def _training(side: MethodResults, target: Target) -> Usage | None:
    """One training to the target, medians over the seeds with misses as infinite; None where the median misses."""
    seconds = [reach(record, side.epochs.get(record.trial, ()), target).seconds for record in timed_runs(side, target)]
    median = statistics.median(seconds) if seconds else math.inf
    if math.isinf(median):
        return None
    return Usage(seconds=devices(side.config) * median, energy=_median_energy(side, target))


def _energies(side: MethodResults, target: Target) -> dict[int, Energy | None]:
    """Up to the target, by seed; those that missed it are left out."""
    reached = {
        record.seed: target.first_reached(side.epochs.get(record.trial, ()))
        for record in timed_runs(side, target)
        if not record.outcome.failed
    }
    return {seed: metrics.energy for seed, metrics in reached.items() if metrics is not None}


def _median_energy(side: MethodResults, target: Target) -> Energy | None:
    """Over the seeds, with misses as infinite; None where a seed's is not known, or of another source."""
    joules = _joules(side, target)
    source = next((each.source for each in _energies(side, target).values() if each is not None), None)
    return None if joules is None or source is None else Energy(statistics.median(joules.values()), source)


def _joules(side: MethodResults, target: Target) -> dict[int, float] | None:
    energies = _energies(side, target)
    known = {seed: each for seed, each in energies.items() if each is not None}
    if len(known) < len(energies) or len({each.source for each in known.values()}) != 1:
        return None
    seeds = [record.seed for record in timed_runs(side, target)]
    return {seed: known[seed].joules if seed in known else math.inf for seed in seeds}


def _energy_state(
    sides: Sequence[MethodResults], target: Target
) -> Literal["measured", "estimated", "unknown", "mixed"]:
    energies = [each for side in sides for each in _energies(side, target).values()]
    known = [each for each in energies if each is not None]
    if not known or len(known) < len(energies):
        return "unknown"
    if len({each.source for each in known}) > 1:
        return "mixed"
    return "measured" if known[0].measured else "estimated"


def _energy_ratio(sides: Sequence[MethodResults], target: Target) -> Ratio | None:
    own, other = (_joules(side, target) for side in sides)
    return None if own is None or other is None else paired_ratio(own, other)


def _proven(ratio: Ratio | None) -> bool:
    return ratio is not None and ratio.verdict in ("faster", "slower")


def _tuning(side: MethodResults) -> Usage:
    """All trainings of both phases."""
    trained = [record for record in side.trials if record.training_seconds > 0]
    seconds = devices(side.config) * sum(record.training_seconds for record in trained)
    return Usage(seconds=seconds, energy=total(record.energy for record in trained))


def _nothing(usage: Usage) -> Usage:
    """No tuning at all, with energy known where the other's is."""
    return Usage(seconds=0.0, energy=Energy(0.0, usage.energy.source) if usage.energy else None)


def _payback(tuning: Usage, instead: Usage, trainings: tuple[Usage, Usage] | None, terms: Terms) -> Amounts | None:
    return payback((tuning, instead), trainings, terms.prices) if trainings else None


def _cycles(side: MethodResults, target: Target) -> float | None:
    """Per week and device, if every training ended at the target; None where nothing was trained."""
    records = [*search_trials(side), *timed_runs(side, target)]
    seconds = devices(side.config) * sum(_to_its_end(record, side, target) for record in records)
    return _WEEK / seconds if seconds > 0 else None


def _to_its_end(record: TrialRecord, side: MethodResults, target: Target) -> float:
    return min(reach(record, side.epochs.get(record.trial, ()), target).seconds, record.training_seconds)

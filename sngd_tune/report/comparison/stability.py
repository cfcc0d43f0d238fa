"""How reliable a method is on one workload: what fails, what misses, how its losses jump, how far its seeds lie apart.

A spike begins where the training loss of an evaluation exceeds the lowest one before it by more than `SPIKE` of what
had been gained since the first evaluation; what follows belongs to it until the loss is below that line again. A loss
that is not finite lies above every line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.comparison.runs import MethodResults, completed, confirmations, reach, search_trials, timed_runs
from sngd_tune.report.statistics import spread

__all__ = ["SPIKE", "Count", "Stability", "loss_spikes", "stability"]

#: Part of the gain so far that a loss has to give back to count as a spike.
SPIKE = 0.1


@dataclass(frozen=True, kw_only=True)
class Count:
    """So many of so many."""

    count: int
    of: int

    @property
    def share(self) -> float | None:
        """From 0 to 1; None of nothing."""
        return self.count / self.of if self.of else None


@dataclass(frozen=True, kw_only=True)
class Stability:
    """One method on one workload. Only what has ended counts.

    Attributes:
        seeds_reached: re-trainings of the timed settings that reached the target.
        settings_reached: trials of the search that did. One that was stopped before it got there did not.
        failed: trainings of both phases that failed, whatever the reason.
        diverged: the part of them whose loss, gradient or Fisher matrix became NaN or infinite.
        spikes: of the loss, over the re-trainings; `of` is the number of these.
        metric: test metric of `metric_deviation`; None where nothing was tested.
        metric_deviation: standard deviation (n − 1) over the seeds of the best settings; None with fewer than two.
        log_time_deviation: of the natural logarithm of the seconds to the target, over the seeds that reached it; about
            0.1 where times lie 10 % apart.
    """

    seeds_reached: Count
    settings_reached: Count
    failed: Count
    diverged: Count
    spikes: Count
    metric: str | None
    metric_deviation: float | None
    log_time_deviation: float | None


def stability(method: MethodResults, target: Target) -> Stability:
    """The stability of a method, from its search and from its re-trainings."""
    search = [record for record in search_trials(method) if record.outcome.finished]
    timed, best = timed_runs(method, target), confirmations(method, "best")
    ended = [record for record in method.trials if record.outcome.finished]
    confirmed = [record for record in ended if record.phase == "confirm"]
    metric, deviation = _test_deviation(best)
    return Stability(
        seeds_reached=_reached(method, timed, target),
        settings_reached=_reached(method, search, target),
        failed=Count(count=sum(record.outcome.failed for record in ended), of=len(ended)),
        diverged=Count(count=sum(record.outcome is Outcome.DIVERGED for record in ended), of=len(ended)),
        spikes=Count(
            count=sum(loss_spikes(method.epochs.get(record.trial, ())) for record in confirmed), of=len(confirmed)
        ),
        metric=metric,
        metric_deviation=deviation,
        log_time_deviation=_log_time_deviation(method, timed, target),
    )


def loss_spikes(epochs: Sequence[EpochMetrics], part: float = SPIKE) -> int:
    """Spikes of the training loss, as the module defines them.

    Args:
        epochs: evaluations of one training, in order.
        part: of the gain so far, > 0.
    """
    spikes, above = 0, False
    first = lowest = math.inf
    for loss in (metrics.training_loss for metrics in epochs):
        if math.isinf(first):
            first = lowest = loss if math.isfinite(loss) else math.inf
        line = lowest + part * (first - lowest) if lowest < first else math.inf
        jumped = not math.isfinite(loss) or loss > line
        spikes += jumped and not above
        above = jumped
        lowest = min(lowest, loss) if math.isfinite(loss) else lowest
    return spikes


def _reached(method: MethodResults, records: Sequence[TrialRecord], target: Target) -> Count:
    return Count(count=len(_times(method, records, target)), of=len(records))


def _times(method: MethodResults, records: Sequence[TrialRecord], target: Target) -> list[float]:
    seconds = [reach(record, method.epochs.get(record.trial, ()), target).seconds for record in records]
    return [each for each in seconds if math.isfinite(each)]


def _log_time_deviation(method: MethodResults, timed: Sequence[TrialRecord], target: Target) -> float | None:
    found = spread([math.log(seconds) for seconds in _times(method, timed, target) if seconds > 0])
    return found.deviation if found else None


def _test_deviation(best: Sequence[TrialRecord]) -> tuple[str | None, float | None]:
    for metric in ("test_accuracy", "test_loss"):
        found = spread([getattr(record, metric) for record in completed(best)])
        if found is not None:
            return metric, found.deviation
    return None, None

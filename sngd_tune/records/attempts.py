"""What attempts at a trial used that its record does not count: what was trained, lost, and trained again.

A record counts from the start of the trial through the checkpoints that its attempts went on from. An attempt that was
cut off had reported epochs beyond the last checkpoint, which the next one trained again, or all of them, where there
was none. Those reports say what the lost part took up to the last of them. What came after it, part of an epoch or of a
moment in which several short ones ended, nobody has told, and it is only known how many attempts ended that way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sngd_tune.records.energy import Energy
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["Attempts", "Lost", "Report", "attempts_of", "together"]

_CUT_OFF = (Outcome.LOST, Outcome.PREEMPTED, Outcome.INTERRUPTED)


@dataclass(frozen=True)
class Report:
    """An epoch as one attempt told it: seconds of training and energy since the start of the trial."""

    attempt: int
    epoch: int
    seconds: float
    energy: Energy | None


@dataclass(frozen=True)
class Lost:
    """What was trained and came to nothing: s of training, and their energy, None where it is not known."""

    seconds: float
    energy: Energy | None


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """The attempts at some trials.

    Attributes:
        begun: all of them.
        cut_off: those that ended with their process, their node or the study; what they used after their last report is
            not known.
        lost: what others had to train again, as far as it was reported; one entry a gap.
    """

    begun: int = 0
    cut_off: int = 0
    lost: tuple[Lost, ...] = ()


def attempts_of(records: Iterable[TrialRecord], reports: Mapping[str, Sequence[Report]]) -> Attempts:
    """The attempts at these trials.

    Args:
        records: the latest state of each trial.
        reports: by trial, of all its attempts.
    """
    found = list(records)
    return Attempts(
        begun=sum(record.attempt + 1 for record in found),
        cut_off=sum(record.attempt + (record.outcome in _CUT_OFF) for record in found),
        lost=tuple(gap for record in found for gap in _gaps(record, reports.get(record.trial, ()))),
    )


def together(several: Iterable[Attempts]) -> Attempts:
    """The attempts of several studies."""
    found = list(several)
    return Attempts(
        begun=sum(each.begun for each in found),
        cut_off=sum(each.cut_off for each in found),
        lost=tuple(gap for each in found for gap in each.lost),
    )


def _gaps(record: TrialRecord, reports: Sequence[Report]) -> list[Lost]:
    """Epochs that an attempt trained again from its own first one on, and those beyond what the record counts.

    One that was not trained but told again, from a checkpoint, took the same time to the last digit.
    """
    known: dict[int, Report] = {}
    gaps = []
    for report in sorted(reports, key=lambda each: (each.attempt, each.epoch)):
        if report.epoch in known and known[report.epoch].seconds != report.seconds:
            gaps.append(_taken_back(known, report.epoch))
        known[report.epoch] = report
    if known and max(known) > record.epochs:
        gaps.append(_taken_back(known, record.epochs + 1))
    return gaps


def _taken_back(known: dict[int, Report], first: int) -> Lost:
    """What the epochs from `first` on took; they are known no longer."""
    last, before = known[max(known)], known.get(first - 1)
    for epoch in [epoch for epoch in known if epoch >= first]:
        del known[epoch]
    return Lost(last.seconds - (before.seconds if before else 0.0), _between(last, before))


def _between(last: Report, before: Report | None) -> Energy | None:
    if before is None or last.energy is None:
        return last.energy
    return last.energy - before.energy if before.energy and before.energy.source == last.energy.source else None

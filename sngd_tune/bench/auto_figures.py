"""What ``sngd-tune bench auto`` finds: losses of the three winners in pairs, what was spent, and whether it is enough.

Two aims are held against the median ratio of validation losses: that of settings without a search may be a tenth above
the plain search's, and that of a short search around them has to equal it, to the two digits that so few seeds tell.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["AIMS", "figures", "missed"]

#: The largest median ratio of validation losses to the plain search's, by what is compared.
AIMS: Mapping[str, float] = {"auto": 1.10, "searched": 1.005}


def figures(trials: Mapping[str, Sequence[TrialRecord]], seeds: int, probing_seconds: float) -> dict[str, Any]:
    """The figures of a workload's row; see `bench.auto.measure`.

    Args:
        trials: of the studies ``"plain"``, ``"auto"`` and ``"searched"``.
        seeds: on which winners were trained again.
        probing_seconds: of the selection.
    """
    confirmed = {kind: _confirmed(records, seeds) for kind, records in trials.items()}
    spent = {kind: sum(r.training_seconds for r in records if r.phase == "search") for kind, records in trials.items()}
    spent |= {"auto": probing_seconds, "searched": probing_seconds + spent["searched"]}
    return {
        **_losses({kind: [_validation_loss(record) for record in found] for kind, found in confirmed.items()}),
        **{f"{kind}_test": _median([_test(record) for record in found]) for kind, found in confirmed.items()},
        "probing_seconds": probing_seconds,
        **{f"{kind}_seconds": seconds for kind, seconds in spent.items()},
        "equal_seconds_ratio": _at_equal_seconds(trials, spent["searched"], probing_seconds),
    }


def missed(row: Mapping[str, Any]) -> list[str]:
    """The aims that a workload misses, in words; a training that failed misses its own."""
    found = [(kind, aim, row[f"{kind}_ratio"]) for kind, aim in AIMS.items()]
    return [
        f"{row['workload']}: {kind} has {'no loss' if ratio is None else f'{ratio:.3f} × the loss'} of the plain"
        f" search's winner; the aim is ≤ {aim:g} ×"
        for kind, aim, ratio in found
        if ratio is None or ratio > aim
    ]


def _at_equal_seconds(
    trials: Mapping[str, Sequence[TrialRecord]], seconds: float, probing_seconds: float
) -> float | None:
    """Best loss of the search around the selection over that of the plain search after as many seconds."""
    searched = _best_within(trials["searched"], seconds - probing_seconds)
    plain = _best_within(trials["plain"], seconds)
    return None if searched is None or plain is None else searched / plain


def _best_within(records: Sequence[TrialRecord], seconds: float) -> float | None:
    """The lowest validation loss of a search's trials that ended within its first seconds of training, all together."""
    spent, best = 0.0, math.inf
    ended = [(record.ended, record) for record in records if record.phase == "search" and record.ended is not None]
    for _, record in sorted(ended, key=lambda pair: pair[0]):
        spent += record.training_seconds
        if spent > seconds * (1 + 1e-9):
            break
        if record.outcome is Outcome.COMPLETED:
            best = min(best, record.objectives["validation_loss"] or math.inf)
    return best if math.isfinite(best) else None


def _losses(losses: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Each loss, those of one seed over one another, and the medians of both."""
    ratios = {
        kind: [
            None if own is None or plain is None else own / plain
            for own, plain in zip(losses[kind], losses["plain"], strict=True)
        ]
        for kind in AIMS
    }
    return {
        **{f"{kind}_loss": _median(values) for kind, values in losses.items()},
        **{f"{kind}_ratio": _median(values) for kind, values in ratios.items()},
        **{f"{kind}_losses": list(values) for kind, values in losses.items()},
        **{f"{kind}_ratios": values for kind, values in ratios.items()},
    }


def _confirmed(records: Sequence[TrialRecord], seeds: int) -> list[TrialRecord | None]:
    """The winner's trainings by seed; None for one that is missing or failed."""
    found = {r.number: r for r in records if r.phase == "confirm" and r.outcome is Outcome.COMPLETED}
    return [found.get(number) for number in range(seeds)]


def _validation_loss(record: TrialRecord | None) -> float | None:
    return None if record is None else record.objectives.get("validation_loss")


def _test(record: TrialRecord | None) -> float | None:
    if record is None:
        return None
    return record.test_loss if record.test_accuracy is None else record.test_accuracy


def _median(values: Sequence[float | None]) -> float | None:
    """None where any is: what failed on one seed is no better than that."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None

"""What local Fisher layers cost over a plain step along an axis, in sentences and rows."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from sngd_tune.records.strict import Scalar
from sngd_tune.report.canvas import words
from sngd_tune.report.scaling.numbers import exponent
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.scaling.fits import POINTS_PER_DECADE, NoFit, PowerLaw
from sngd_tune.scaling.ratios import Amount, Ratio, Verdict

__all__ = ["RATIO_COLUMNS", "overhead_sentences", "ratio_points", "ratio_rows"]

RATIO_COLUMNS = ("ratio", "from", "to", "power", "last decade", "misfit", "verdict")

_ANSWERS: dict[Verdict, str] = {
    "grows": "Yes",
    "falls": "No",
    "does not grow": "No, as far as this tells",
    "open": "Not decided",
}


def overhead_sentences(report: ScalingReport, axis: str) -> list[str]:
    """Whether what a method adds grows faster along an axis than a step of another, and by what that is judged.

    Of too few values to tell growth by there is nothing to say: the table has them.
    """
    own = [ratio for ratio in report.ratios if ratio.axis == axis and len(ratio.values) >= POINTS_PER_DECADE]
    groups = itertools.groupby(own, key=lambda ratio: (ratio.over.method, ratio.under.method))
    return [_answer(method, other, words(axis), list(group)) for (method, other), group in groups]


def ratio_rows(report: ScalingReport, axis: str) -> list[tuple[Any, ...]]:
    """One a ratio, under `RATIO_COLUMNS`."""
    return [_row(ratio) for ratio in report.ratios if ratio.axis == axis]


def ratio_points(report: ScalingReport, axis: str) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Headings and rows of the ratios at each value: their geometric mean and its 95 % interval over the seeds."""
    own = [ratio for ratio in report.ratios if ratio.axis == axis]
    values = list(dict.fromkeys(value for ratio in own for value in ratio.values))
    rows = [(_name(ratio), *(_cell(ratio, value) for value in values)) for ratio in own]
    return ("ratio", *map(str, values)), rows


def _answer(method: str, other: str, axis: str, ratios: Sequence[Ratio]) -> str:
    first, *rest = ratios
    answer = f"Does what {method} adds grow faster with {axis} than a step of {other}? {_ANSWERS[first.verdict]}: "
    law, told = first.law, first.verdict != "open"
    tenfold = f", {_tenfold(law)} for ten times the {axis}" if told and isinstance(law, PowerLaw) else ""
    own = f"over such a step, all but its passes is {_ends(first, axis)}; this ratio {_said(first)}{tenfold}"
    others = [f"{_part(each.over)} is {_ends(each, axis)}; it {_said(each)}" for each in rest]
    return f"{answer}{'. '.join([own, *others])}."


def _part(over: Amount) -> str:
    return "Its whole step" if over.beyond is None else f"What its step takes beyond one of {over.beyond}"


def _ends(ratio: Ratio, axis: str) -> str:
    start, *_, stop = ratio.values
    return f"{_mean(ratio, start)} at {axis} {start} and {_mean(ratio, stop)} at {stop}"


def _said(ratio: Ratio) -> str:
    """The verdict with its figures."""
    law = ratio.law
    if isinstance(law, NoFit):
        return f"has no power ({law.reason})"
    verdict = "may be constant, or double over a decade" if ratio.verdict == "open" else ratio.verdict
    where = f" from {law.start:g} to {law.stop:g}, as no one power holds over all" if ratio.last is not None else ""
    return f"{verdict}: power {exponent(law)}{where}"


def _row(ratio: Ratio) -> tuple[Any, ...]:
    start, *_, stop = ratio.values
    misfit = f"p = {ratio.misfit:.2g}" if ratio.misfit is not None else None
    last = exponent(ratio.last) if ratio.last is not None else None
    ends = _cell(ratio, start), _cell(ratio, stop)
    return (_name(ratio), *ends, exponent(ratio.whole), last, misfit, ratio.verdict)


def _name(ratio: Ratio) -> str:
    over = ratio.over
    what = f"{'overhead' if over.measure == 'overhead_seconds' else 'step'} {over.method}"
    top = what if over.beyond is None else f"({what} − step {over.beyond})"
    return f"{top} / step {ratio.under.method}"


def _cell(ratio: Ratio, value: Scalar) -> str | None:
    if value not in ratio.values:
        return None
    _, low, high = ratio.at(value)
    return f"{_mean(ratio, value)} ({low:.2f} to {high:.2f})" if math.isfinite(high) else _mean(ratio, value)


def _mean(ratio: Ratio, value: Scalar) -> str:
    mean = ratio.at(value)[0]
    return "not above 0" if math.isnan(mean) else f"{mean:.2f}"


def _tenfold(law: PowerLaw) -> str:
    return f"× {10**law.exponent:.2f} ({_factor(law.low)} to {_factor(law.high)})"


def _factor(power: float) -> str:
    return f"{10**power:.2f}" if math.isfinite(power) and power < 300 else "open"

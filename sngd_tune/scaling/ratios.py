"""One time over another along an axis: does what a method adds grow faster than a step does?

Ratios are taken training by training of the same seed: what slows a machine for a while slows both, and leaves the
ratio as it was. Taken from the two laws apart an exponent would have a wider interval.

A ratio need not follow a power law: at small sizes the fixed cost of calls decides, at large ones arithmetic, and
between them there may be a bend. Where seeds were repeated an F-test of lack of fit sees it: the scatter about the law,
over that within the seeds of a value (5 %). Then the trend over the last decade of the axis is what is claimed.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sngd_tune.records.parameters import PARAMETERS
from sngd_tune.records.scaling import Measurement
from sngd_tune.records.strict import Scalar
from sngd_tune.scaling.fits import NoFit, PowerLaw, fit_power_law
from sngd_tune.scaling.regression import geometric_mean

__all__ = ["Amount", "Ratio", "Verdict", "ratio_of", "ratios_of"]

Verdict = Literal["grows", "falls", "does not grow", "open"]

_LEVEL = 0.05  # of the test for lack of fit
#: A growth by this factor over a decade must lie outside of the interval, lest a wide one pass for a constant ratio.
_NOTABLE = 2.0


@dataclass(frozen=True)
class Amount:
    """A measure of a method, or how much more of it the method has than another one.

    Attributes:
        measure: one of `scaling.measures.MEASURES`.
        method: its label.
        beyond: label of the method whose measure is taken off; None: none.
    """

    measure: str
    method: str
    beyond: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Along one axis, all others at their base.

    Attributes:
        axis: what was changed.
        over, under: numerator and denominator.
        values: by value of the axis, one a seed; numbers ascending.
        whole: the power law through all of them, or why there is none.
        misfit: p-value of the test for lack of fit; None without a law or without repeated seeds.
        last: the law over the last decade of the axis, where one over the whole is rejected; else None.
    """

    axis: str
    over: Amount
    under: Amount
    values: Mapping[Scalar, tuple[float, ...]]
    whole: PowerLaw | NoFit
    misfit: float | None
    last: PowerLaw | NoFit | None

    @property
    def law(self) -> PowerLaw | NoFit:
        """By which the verdict is."""
        return self.whole if self.last is None else self.last

    @property
    def verdict(self) -> Verdict:
        """By the interval of the exponent; ``"open"`` where it holds 0 and a doubling over a decade as well."""
        if isinstance(self.law, NoFit):
            return "open"
        if self.law.low > 0:
            return "grows"
        if self.law.high < 0:
            return "falls"
        return "does not grow" if self.law.high < math.log10(_NOTABLE) else "open"

    def at(self, value: Scalar) -> tuple[float, float, float]:
        """Geometric mean over the seeds and its 95 % interval: `regression.geometric_mean`."""
        return geometric_mean(self.values[value])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is open or undefined is null."""
        return {
            "axis": self.axis,
            "over": asdict(self.over),
            "under": asdict(self.under),
            "points": [_point(value, found, self.at(value)) for value, found in self.values.items()],
            "whole": self.whole.to_dict(),
            "misfit": self.misfit,
            "last_decade": self.last.to_dict() if self.last is not None else None,
            "verdict": self.verdict,
        }


def ratios_of(
    measurements: Sequence[Measurement], axes: Iterable[str], settings: Mapping[str, Mapping[str, Scalar]]
) -> list[Ratio]:
    """Along each axis, for each method with local Fisher layers over a step of each without: its overhead, what its
    step takes beyond one of its base optimizer where the study has that as a method, and its whole step.

    Args:
        measurements: of a scaling study.
        axes: of the study.
        settings: of each method at the base point.
    """
    optimizers = {method: str(_of(setting, "optimizer")) for method, setting in settings.items()}
    plain = [method for method, optimizer in optimizers.items() if optimizer != "sngd"]
    found = []
    for axis, method, other in itertools.product(axes, settings, plain):
        if method not in plain:
            own = str(_of(settings[method], "base"))
            base = next((each for each in plain if optimizers[each] == own), None)
            amounts = [Amount("overhead_seconds", method), Amount("step_seconds", method)]
            amounts[1:1] = [Amount("step_seconds", method, base)] if base is not None else []
            under = Amount("step_seconds", other)
            found += [ratio_of(measurements, axis, over, under) for over in amounts]
    return [ratio for ratio in found if ratio is not None]


def ratio_of(measurements: Iterable[Measurement], axis: str, over: Amount, under: Amount) -> Ratio | None:
    """How one amount over another goes along an axis; None where fewer than two values have both.

    Args:
        measurements: of a scaling study; a grid's points off the base do not enter.
        axis: along which.
        over: numerator.
        under: denominator.
    """
    along = {(each.value, each.seed, each.method): each for each in measurements if each.axis == axis and not each.held}
    values: dict[Scalar, list[float]] = {}
    for value, seed in dict.fromkeys((value, seed) for value, seed, _ in along):
        top, bottom = (_amount(along, value, seed, each) for each in (over, under))
        if top is not None and bottom:
            values.setdefault(value, []).append(top / bottom)
    if len(values) < 2:
        return None
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    ordered = {value: tuple(values[value]) for value in (sorted(values, key=float) if numeric else values)}
    if not numeric:
        return Ratio(axis=axis, over=over, under=under, values=ordered, whole=_WORDS, misfit=None, last=None)
    whole = _law(ordered)
    misfit = _misfit(whole, ordered) if isinstance(whole, PowerLaw) else None
    last = _last_decade(ordered) if misfit is not None and misfit < _LEVEL else None
    return Ratio(axis=axis, over=over, under=under, values=ordered, whole=whole, misfit=misfit, last=last)


def _of(setting: Mapping[str, Scalar], name: str) -> Scalar:
    default: Scalar = PARAMETERS[name].default
    return setting.get(name, default)


_WORDS = NoFit("the values of this axis are no numbers")


def _amount(
    along: Mapping[tuple[Scalar, int, str], Measurement], value: Scalar, seed: int, amount: Amount
) -> float | None:
    """Of the trainings of one seed; None where one is missing."""
    found = []
    for method in (amount.method, *([amount.beyond] if amount.beyond is not None else [])):
        training = along.get((value, seed, method))
        if training is None or amount.measure not in training.measures:
            return None
        found.append(training.measures[amount.measure])
    return found[0] - sum(found[1:])


def _law(values: Mapping[Scalar, Sequence[float]]) -> PowerLaw | NoFit:
    bad = next((value for value, found in values.items() if not min(found) > 0), None)
    if bad is not None:
        return NoFit(f"it is not above 0 in a training at {bad}")
    pairs = [(float(value), each) for value, found in values.items() for each in found]
    return fit_power_law([x for x, _ in pairs], [y for _, y in pairs], floor=False)


def _last_decade(values: Mapping[Scalar, Sequence[float]]) -> PowerLaw | NoFit:
    start = max(map(float, values)) / 10 * (1 - 1e-9)
    return _law({value: found for value, found in values.items() if float(value) >= start})


def _misfit(law: PowerLaw, values: Mapping[Scalar, Sequence[float]]) -> float | None:
    """p-value under the hypothesis that the scatter about the law is that within seeds."""
    from scipy.stats import f

    groups = [np.log(found) for found in values.values()]
    freedom = sum(len(group) - 1 for group in groups)
    within = sum(float(np.square(group - group.mean()).sum()) for group in groups)
    if freedom == 0 or within <= 0:
        return None
    about = sum(len(group) * residual**2 for group, residual in zip(groups, law.residuals, strict=True))
    return float(f.sf((about / law.freedom) / (within / freedom), law.freedom, freedom))


def _point(value: Scalar, found: Sequence[float], interval: Sequence[float]) -> dict[str, Any]:
    mean, low, high = (number if math.isfinite(number) else None for number in interval)
    return {"value": value, "seeds": list(found), "mean": mean, "low": low, "high": high}

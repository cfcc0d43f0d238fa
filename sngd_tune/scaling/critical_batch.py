"""The critical batch size: up to where a larger batch saves steps in proportion.

McCandlish et al. 2018 (arXiv 1812.06162): with ``S`` steps and ``E = B S`` examples to a target,
``(S / S_min − 1) (E / E_min − 1) = 1``, which is ``S = S_min (1 + B_crit / B)`` with ``B_crit = E_min / S_min``. At
``B_crit`` a training takes twice the fewest steps and twice the fewest examples. The law is for settings that are tuned
at each batch size; where one rule moves the learning rate along, the fit is of that rule.

Fitted is ``log S`` by maximum likelihood with normal errors. A training that missed the target is censored: it would
have taken more steps than it had (Tobin 1958), and leaving it out would flatter its batch size. The interval is a
profile of the likelihood, widened for few trainings as Student's is; in simulations it held 92 to 96 % of the time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sngd_tune.scaling.fits import NoFit

__all__ = ["CriticalBatch", "fit_critical_batch"]

_LEVEL = 0.95
_BATCHES = 3  # batch sizes at which the target was reached
_FREE = 3  # S_min, B_crit and the size of errors
#: How far beyond the measured batches B_crit is looked for; further out an end of its interval is open.
_REACH = 1e4
_ROUNDING = 1e-6  # least size of errors in log S


@dataclass(frozen=True, kw_only=True)
class CriticalBatch:
    """``S(B) = least_steps · (1 + size / B)``.

    Attributes:
        size: ``B_crit``, examples.
        low, high: its 95 % interval; 0 and infinity where the trainings leave an end open.
        least_steps: ``S_min``.
        least_examples: ``E_min = B_crit S_min``.
        error: standard deviation of ``log S`` about the law.
        smallest, largest: the batch sizes at which the target was reached.
        reached, missed: trainings.
    """

    size: float
    low: float
    high: float
    least_steps: float
    least_examples: float
    error: float
    smallest: float
    largest: float
    reached: int
    missed: int

    @property
    def extrapolated(self) -> bool:
        """Whether the size lies outside of the batches that were measured."""
        return not self.smallest <= self.size <= self.largest

    def steps(self, batch: float) -> float:
        """``S(B)``."""
        return self.least_steps * (1 + self.size / batch)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; an open upper end is null."""
        high = self.high if math.isfinite(self.high) else None
        return {**asdict(self), "high": high, "extrapolated": self.extrapolated}


def fit_critical_batch(
    batches: Sequence[float], steps: Sequence[float], budgets: Sequence[float] | None = None
) -> CriticalBatch | NoFit:
    """Fit the steps to a target against the batch size.

    Args:
        batches: of each training, examples, > 0.
        steps: that it took to the target; infinite where it was missed.
        budgets: steps that each had; needed where one was missed.

    Returns:
        The fit, or why there is none.

    >>> fit = fit_critical_batch([16, 32, 64, 128, 256], [500 * (1 + 64 / b) for b in (16, 32, 64, 128, 256)])
    >>> round(fit.size, 2), round(fit.least_steps, 1)
    (64.0, 500.0)
    """
    sizes, taken = np.array(batches, dtype=float), np.array(steps, dtype=float)
    reached = np.isfinite(taken)
    reason = _unfit(sizes, taken, reached, budgets)
    if reason is not None:
        return NoFit(reason)
    limits = taken if budgets is None else np.where(reached, taken, np.array(budgets, dtype=float))
    trainings = _Trainings(np.log(sizes), np.log(limits), reached)
    size, low, high = trainings.interval()
    least_steps, error = trainings.best(size)[1:]
    return CriticalBatch(
        size=math.exp(size),
        low=math.exp(low) if low > -math.inf else 0.0,
        high=math.exp(high),
        least_steps=math.exp(least_steps),
        least_examples=math.exp(size + least_steps),
        error=error,
        smallest=float(sizes[reached].min()),
        largest=float(sizes[reached].max()),
        reached=int(reached.sum()),
        missed=int((~reached).sum()),
    )


def _unfit(sizes: np.ndarray, taken: np.ndarray, reached: np.ndarray, budgets: Sequence[float] | None) -> str | None:
    if np.isnan(taken).any() or (taken <= 0).any() or (sizes <= 0).any():
        return "steps and batch sizes must be above 0"
    if not reached.all() and budgets is None:
        return f"{int((~reached).sum())} trainings missed the target, and the steps that they had are not known"
    found = len(set(sizes[reached].tolist()))
    if found < _BATCHES:
        return f"the target was reached at {found} batch sizes: {_BATCHES} at the least are needed; ease the target"
    if reached.sum() <= _FREE:
        return f"{int(reached.sum())} trainings reached the target: more than {_FREE} are needed; add seeds"
    return None


@dataclass(frozen=True)
class _Trainings:
    """Logarithms of batch sizes and of steps, or of the steps that were not enough."""

    batches: np.ndarray
    steps: np.ndarray
    reached: np.ndarray

    def best(self, size: float) -> tuple[float, float, float]:
        """Negative log-likelihood under ``log B_crit = size``, and the ``log S_min`` and error at its least."""
        rest = self.steps - np.logaddexp(0, size - self.batches)
        level = float(rest[self.reached].mean())
        error = max(float(rest[self.reached].std()), _ROUNDING)
        if self.reached.all():
            return self._unlikelihood(rest, level, error), level, error
        from scipy.optimize import minimize

        found = minimize(
            lambda each: self._unlikelihood(rest, each[0], max(math.exp(each[1]), _ROUNDING)),
            (level, math.log(max(error, 0.05))),
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-7},
        )
        return float(found.fun), float(found.x[0]), max(math.exp(float(found.x[1])), _ROUNDING)

    def interval(self) -> tuple[float, float, float]:
        """``log B_crit``, and the ends of its interval."""
        from scipy.optimize import minimize_scalar
        from scipy.stats import t

        reach = math.log(_REACH)
        grid = np.linspace(self.batches.min() - reach, self.batches.max() + reach, 60)
        values = [self.best(each)[0] for each in grid]
        place = int(np.argmin(values))
        bounds = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
        found = minimize_scalar(lambda each: self.best(each)[0], bounds=bounds, method="bounded")
        size, least = float(found.x), float(found.fun)
        count = int(self.reached.sum())
        freedom = count - _FREE + 1  # the error is no parameter of the mean
        rise = count / 2 * math.log1p(t.ppf((1 + _LEVEL) / 2, freedom) ** 2 / freedom)

        def excess(each: float) -> float:
            return self.best(each)[0] - least - rise

        return size, _end(excess, size, grid[0], -math.inf), _end(excess, size, grid[-1], math.inf)

    def _unlikelihood(self, rest: np.ndarray, level: float, error: float) -> float:
        from scipy.stats import norm

        z = (rest - level) / error
        density = -0.5 * np.square(z[self.reached]) - math.log(error)
        return -float(density.sum() + norm.logsf(z[~self.reached]).sum())


def _end(excess: Callable[[float], float], inside: float, outside: float, open_end: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(excess, inside, outside, xtol=1e-4)) if excess(outside) > 0 else open_end

"""Least squares on logarithms: a plain power law, and one above a floor; the errors of what they find.

``x`` is scaled by its geometric mean, the middle, where the level of a law and the floor's share in it are told.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Solution", "geometric_mean", "middle_of", "plain", "sensitivities", "solve", "student"]

_LEVEL = 0.95
#: The F-test's, by which a floor is taken up, and the values of ``x`` from which it is made.
_FLOOR_LEVEL, _FLOOR_POINTS = 0.05, 5
#: Exponents above a floor are sought in ± this; beyond, an interval is open.
_STEEPEST = 8.0
_ROUNDING = 1e-20  # mean square of residuals that are rounding errors alone
_SHARES = 1 / (1 + np.exp(-np.linspace(-14, 14, 113)))  # of the floor; tried first


@dataclass(frozen=True)
class Solution:
    """``log y = level + log(share + (1 − share) (x / middle)^exponent)``."""

    level: float
    share: float
    exponent: float
    interval: tuple[float, float]
    residuals: np.ndarray


def solve(x: np.ndarray, logs: np.ndarray, *, floor: bool) -> Solution:
    """The law of points: plain, unless they ask for a floor and `floor` allows one.

    Args:
        x: distinct, > 0, at least 3.
        logs: ``log y`` there.
        floor: whether a floor may be.
    """
    simple = plain(x, logs)
    if not floor or len(x) < _FLOOR_POINTS or np.mean(np.square(simple.residuals)) <= _ROUNDING:
        return simple
    raised = _raised(x, logs)
    held = all(map(math.isfinite, raised.interval))
    return raised if held and _asked_for(simple.residuals, raised.residuals) else simple


def plain(x: np.ndarray, logs: np.ndarray) -> Solution:
    """Of a straight line; its interval is Student's."""
    u = np.log(x / middle_of(x))
    exponent, level = float(u @ logs / (u @ u)), float(logs.mean())  # the mean of u is 0
    residuals = logs - level - exponent * u
    half = student(len(x) - 2) * math.sqrt(residuals @ residuals / (len(x) - 2) / (u @ u))
    return Solution(level, 0.0, exponent, (exponent - half, exponent + half), residuals)


def _raised(x: np.ndarray, logs: np.ndarray) -> Solution:
    """With a floor."""
    from scipy.optimize import minimize_scalar

    scaled = x / middle_of(x)

    def squares(exponent: float) -> float:
        return _best_share(scaled, logs, exponent)[1]

    grid = np.linspace(-_STEEPEST, _STEEPEST, 161)
    start = int(np.argmin(_squares(scaled, logs, _SHARES[:, None], grid[:, None, None]).min(-1)))
    exponent = float(minimize_scalar(squares, bounds=_bracket(squares, grid, start), method="bounded").x)
    share = _best_share(scaled, logs, exponent)[0]
    rest = logs - _shape(scaled, share, exponent)
    freedom = len(x) - 3
    limit = (rest - rest.mean()) @ (rest - rest.mean()) * (1 + student(freedom) ** 2 / freedom)
    interval = (_end(squares, limit, exponent, -1), _end(squares, limit, exponent, 1))
    return Solution(float(rest.mean()), share, exponent, interval, rest - rest.mean())


def _bracket(squares: Callable[[float], float], grid: np.ndarray, start: int) -> tuple[float, float]:
    """Exponents beside the best one of the grid, downhill from `start`, which was found with few shares."""

    def left(place: int) -> float:
        return squares(float(grid[place])) if 0 <= place < len(grid) else math.inf

    best = start
    while left(beside := min((best - 1, best + 1), key=left)) < left(best):
        best = beside
    return float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])


def _best_share(scaled: np.ndarray, logs: np.ndarray, exponent: float) -> tuple[float, float]:
    """The floor's share in the middle under an exponent, and the squares that are left."""
    from scipy.optimize import minimize_scalar

    tried = _squares(scaled, logs, _SHARES[:, None], exponent)
    best = int(np.argmin(tried))
    bounds = _SHARES[max(best - 1, 0)], _SHARES[min(best + 1, len(_SHARES) - 1)]
    found = minimize_scalar(
        lambda share: float(_squares(scaled, logs, share, exponent)),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-12},
    )
    return (float(found.x), float(found.fun)) if found.fun < tried[best] else (float(_SHARES[best]), float(tried[best]))


def _end(squares: Callable[[float], float], limit: float, exponent: float, side: int) -> float:
    """Where the interval of the exponent ends on one side."""
    from scipy.optimize import brentq

    inside, width = exponent, 0.05
    while abs(inside) < _STEEPEST:
        outside = min(max(inside + side * width, -_STEEPEST), _STEEPEST)
        if squares(outside) > limit:
            return float(brentq(lambda each: squares(each) - limit, inside, outside, xtol=1e-4))
        inside, width = outside, 1.5 * width
    return side * math.inf


def _asked_for(plain: np.ndarray, raised: np.ndarray) -> bool:
    """Whether a floor leaves so much less that a plain law is rejected."""
    from scipy.stats import f

    freedom = len(raised) - 3
    gain = (plain @ plain - raised @ raised) / max(raised @ raised / freedom, _ROUNDING)
    return bool(f.sf(gain, 1, freedom) < _FLOOR_LEVEL)


def _squares(scaled: np.ndarray, logs: np.ndarray, share: Any, exponent: Any) -> np.ndarray:
    """That are left under shares and exponents, which broadcast against the points in the last dimension."""
    rest = logs - _shape(scaled, share, exponent)
    return np.asarray(np.square(rest - rest.mean(-1, keepdims=True)).sum(-1))


def _shape(scaled: np.ndarray, share: Any, exponent: Any) -> np.ndarray:
    return np.asarray(np.log(share + (1 - share) * scaled**exponent))


def sensitivities(scaled: np.ndarray, share: float, exponent: float, raised: bool) -> np.ndarray:
    """Of ``log y`` to its level, the floor's share (where there is one) and the exponent: ``[points, 2 or 3]``."""
    power = scaled**exponent
    whole = share + (1 - share) * power
    columns = [np.ones_like(scaled), (1 - power) / whole, (1 - share) * power * np.log(scaled) / whole]
    return np.stack(columns if raised else [columns[0], columns[2]], axis=1)


def middle_of(x: np.ndarray) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(x).mean()))


def geometric_mean(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of logarithms and its 95 % interval, open with a single value; all NaN of what is not finite and > 0."""
    found = np.array(values)
    if not ((found > 0) & np.isfinite(found)).all():
        return math.nan, math.nan, math.nan
    logs = np.log(found)
    mean = math.exp(float(logs.mean()))
    if len(logs) < 2:
        return mean, 0.0, math.inf
    factor = math.exp(student(len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs)))
    return mean, mean / factor, mean * factor


def student(freedom: int) -> float:
    """Student's quantile of a 95 % interval."""
    from scipy.stats import t  # a second to import

    return float(t.ppf((1 + _LEVEL) / 2, freedom))

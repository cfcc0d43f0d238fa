"""How well more workers are used: strong and weak scaling of one training, and of many trials side by side.

Strong scaling does the same work with ``n`` workers; Amdahl (1967): ``T(n) = T(1) (s + (1 − s) / n)``. Weak scaling
gives each worker the same work; Gustafson (1988): the speedup is ``s + (1 − s) n``, so ``T(n) = T(1) n / (s + (1 − s)
n)``. In both, ``s`` is the serial share, of which communication is a part; where communication grows with ``n`` neither
law holds, and the residuals show it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sngd_tune.scaling.fits import NoFit

__all__ = ["Efficiency", "SerialShare", "efficiencies", "serial_share"]

Kind = Literal["strong", "weak"]

_LEVEL = 0.95
_FEWEST = 3  # numbers of workers


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """At one number of workers.

    Attributes:
        workers: ``n``.
        seconds: geometric mean of the repetitions.
        speedup: work per second over that of the fewest workers, times these.
        efficiency: ``speedup / n``; 1 is perfect, and above 1 caches or memory are shared out better.
    """

    workers: int
    seconds: float
    speedup: float
    efficiency: float


@dataclass(frozen=True, kw_only=True)
class SerialShare:
    """Fit of Amdahl's or Gustafson's law.

    Attributes:
        kind: which.
        share: ``s`` in [0, 1].
        low, high: its 95 % profile interval, within [0, 1].
        seconds: the law's ``T(1)``.
        residuals: ``log(measured / law)`` by number of workers, ascending.
    """

    kind: Kind
    share: float
    low: float
    high: float
    seconds: float
    residuals: tuple[float, ...]

    @property
    def limit(self) -> float:
        """Strong scaling's speedup with any number of workers, ``1 / s``; infinite for weak scaling."""
        return 1 / self.share if self.kind == "strong" and self.share > 0 else math.inf


def efficiencies(workers: Sequence[int], seconds: Sequence[float], kind: Kind) -> list[Efficiency]:
    """Speedup and efficiency by number of workers, ascending.

    Args:
        workers: ≥ 1; one for each measurement, repetitions included.
        seconds: of a step, > 0 and finite.
        kind: ``"strong"``: the same work for all; ``"weak"``: the same for each.
    """
    means = _means(workers, seconds)
    fewest, first = next(iter(means.items()), (1, 1.0))
    found = []
    for count, value in means.items():
        work = 1.0 if kind == "strong" else count / fewest
        speedup = fewest * work * first / value
        found.append(Efficiency(workers=count, seconds=value, speedup=speedup, efficiency=speedup / count))
    return found


def serial_share(workers: Sequence[int], seconds: Sequence[float], kind: Kind) -> SerialShare | NoFit:
    """Fit the serial share; arguments as in `efficiencies`.

    >>> round(serial_share([1, 2, 4, 8], [8.0, 4.4, 2.6, 1.7], "strong").share, 6)
    0.1
    """
    if any(not 0 < value < math.inf for value in seconds):
        return NoFit("a time that is not above 0 and finite")
    means = _means(workers, seconds)
    if len(means) < _FEWEST:
        return NoFit(f"{len(means)} numbers of workers: a serial share needs {_FEWEST} at the least")
    counts, logs = np.array(list(means), dtype=float), np.log(list(means.values()))

    def rest(share: float) -> np.ndarray:
        offsets = logs - np.log(_TIMES[kind](share, counts))
        return np.asarray(offsets - offsets.mean())

    share, low, high = _minimum(lambda each: float(rest(each) @ rest(each)), len(counts) - 2)
    level = float((logs - np.log(_TIMES[kind](share, counts))).mean())
    residuals = tuple(rest(share).tolist())
    return SerialShare(kind=kind, share=share, low=low, high=high, seconds=math.exp(level), residuals=residuals)


#: ``T(n) / T(1)``.
_TIMES: dict[str, Callable[[float, np.ndarray], np.ndarray]] = {
    "strong": lambda share, n: share + (1 - share) / n,
    "weak": lambda share, n: n / (share + (1 - share) * n),
}


def _minimum(squares: Callable[[float], float], freedom: int) -> tuple[float, float, float]:
    """Where in [0, 1] the squares are least, and the ends of the interval."""
    from scipy.optimize import brentq, minimize_scalar
    from scipy.stats import t

    found = minimize_scalar(squares, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    share = min((float(found.x), 0.0, 1.0), key=squares)
    limit = squares(share) * (1 + t.ppf((1 + _LEVEL) / 2, freedom) ** 2 / freedom)
    # Rounding errors alone leave no interval to look for.
    ends = [
        float(brentq(lambda each: squares(each) - limit, share, end)) if squares(end) > limit > squares(share) else end
        for end in (0.0, 1.0)
    ]
    return share, ends[0], ends[1]


def _means(workers: Sequence[int], seconds: Sequence[float]) -> dict[int, float]:
    """Geometric, by number of workers, ascending."""
    groups: dict[int, list[float]] = {}
    for count, value in sorted(zip(workers, seconds, strict=True)):
        groups.setdefault(count, []).append(math.log(value))
    return {count: math.exp(sum(logs) / len(logs)) for count, logs in groups.items()}

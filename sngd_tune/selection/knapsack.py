"""One option for each layer, so that the sum of values is largest under budgets on sums of costs.

The multiple-choice knapsack (Sinha and Zoltners 1979), by its dominance recursion (Nemhauser and Ullmann 1969): layer
by layer, of all partial choices those are kept that no other beats in value and in every cost. What is left at the end
is the whole front, and the best within *any* budget can be read from it. That is exact. Fronts that would grow beyond
`MOST` are thinned, and then the answer comes with a bound from the linear relaxation, which no choice exceeds.
"""

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["MOST", "Front", "Option", "Point", "front"]

#: Partial choices that are kept at most.
MOST = 4000


@dataclass(frozen=True)
class Option:
    """What one layer may get.

    Attributes:
        value: what is summed and made as large as possible, finite.
        seconds: first cost, ≥ 0.
        bytes: second cost, ≥ 0.
    """

    value: float
    seconds: float
    bytes: float = 0.0


@dataclass(frozen=True)
class Point:
    """A choice for all layers: sums, and the number of each layer's option."""

    value: float
    seconds: float
    bytes: float
    chosen: tuple[int, ...]


@dataclass(frozen=True)
class Front:
    """The choices that no other beats, by ascending seconds.

    Attributes:
        points: at least one.
        exact: whether all such choices are here; else some were left out.
        layers: the options that were given.
    """

    points: tuple[Point, ...]
    exact: bool
    layers: tuple[tuple[Option, ...], ...]

    def best(
        self, seconds: float = math.inf, bytes: float = math.inf, key: Callable[[Point], float] | None = None
    ) -> Point | None:
        """The best point within budgets, by value or another `key`; of equals the cheapest. None: none is within."""
        within = [point for point in self.points if point.seconds <= seconds and point.bytes <= bytes]
        return max(within, key=key or (lambda point: point.value), default=None)

    def cheapest(self) -> Point:
        """The one of fewest seconds."""
        return self.points[0]

    def bound(self, seconds: float) -> float:
        """A value that no choice within `seconds` exceeds: the linear relaxation's, bytes left aside.

        −∞ where not even the cheapest choice is within.
        """
        hulls = [_hull(options) for options in self.layers]
        room = seconds - sum(hull[0].seconds for hull in hulls)
        if room < 0:
            return -math.inf
        value = sum(hull[0].value for hull in hulls)
        for gain, cost in sorted(
            (step for hull in hulls for step in _steps(hull)), key=lambda step: step[0] / step[1], reverse=True
        ):
            share = min(1.0, room / cost)
            value, room = value + share * gain, room - share * cost
            if room <= 0:
                break
        return value


def front(layers: Sequence[Sequence[Option]], most: int = MOST) -> Front:
    """The front of all choices of one option per layer.

    Args:
        layers: at least one option each.
        most: partial choices to keep.
    """
    exact, partial = True, [Point(0.0, 0.0, 0.0, ())]
    for options in layers:
        useful = _undominated(Point(o.value, o.seconds, o.bytes, (i,)) for i, o in enumerate(options))
        partial = _undominated(_joined(point, option) for point in partial for option in useful)
        if len(partial) > most:
            exact, partial = False, _thinned(partial, most)
    return Front(tuple(partial), exact, tuple(map(tuple, layers)))


def _joined(point: Point, option: Point) -> Point:
    return Point(
        point.value + option.value,
        point.seconds + option.seconds,
        point.bytes + option.bytes,
        point.chosen + option.chosen,
    )


def _undominated(points: Iterator[Point]) -> list[Point]:
    """Those that no other beats in all three, by ascending seconds.

    A staircase of the (bytes, value) seen so far: ascending in both, so that one look finds the best value for less.
    """
    kept: list[Point] = []
    room: list[float] = []
    values: list[float] = []
    for point in sorted(points, key=lambda p: (p.seconds, -p.value, p.bytes)):
        place = bisect.bisect_right(room, point.bytes)
        if place and values[place - 1] >= point.value:
            continue
        kept.append(point)
        end = place
        while end < len(values) and values[end] <= point.value:
            end += 1
        start = place - 1 if place and room[place - 1] == point.bytes else place
        room[start:end], values[start:end] = [point.bytes], [point.value]
    return kept


def _thinned(points: Sequence[Point], most: int) -> list[Point]:
    """So many of them, even in seconds' rank; the cheapest and the best are among them."""
    best = max(range(len(points)), key=lambda i: points[i].value)
    chosen = {0, best, *(round(i * (len(points) - 1) / (most - 3)) for i in range(most - 2))}
    return [points[i] for i in sorted(chosen)]


def _hull(options: Sequence[Option]) -> list[Option]:
    """The options on the upper concave hull of value over seconds, from the cheapest on."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.seconds, -o.value)):
        if hull and option.value <= hull[-1].value:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], option):
            hull.pop()
        hull.append(option)
    return hull


def _steps(hull: Sequence[Option]) -> Iterator[tuple[float, float]]:
    """Value and seconds of each step up a hull; steps for nothing are as good as there from the start."""
    for before, after in pairwise(hull):
        yield after.value - before.value, max(after.seconds - before.seconds, 1e-300)


def _slope(one: Option, other: Option) -> float:
    return (other.value - one.value) / max(other.seconds - one.seconds, 1e-300)

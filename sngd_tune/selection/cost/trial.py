"""Timing the operations of one layer under one setting, each at a size at which it is quick."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sngd_tune.core.account import Match
from sngd_tune.core.memory import Prediction, available
from sngd_tune.core.nystrom import OVERSAMPLING
from sngd_tune.selection.cost.rig import PlainRig, Rig, canonical, specimen
from sngd_tune.selection.cost.timing import OtherWork, Timing, climb, seconds_of, seconds_of_rare
from sngd_tune.selection.observation import Observation
from sngd_tune.settings import FisherSettings

__all__ = ["Trial"]

#: Bytes of a local Fisher layer's state, or of weights, up to which every operation is quick.
_SMALL = 2**16
#: Columns of a sketch up to which its cost goes with the inputs alone.
_NARROW = 128
#: Bytes that a local Fisher layer may keep to be measured at its own size, and what share of the free memory a refresh
#: may take.
_LARGEST, _SHARE = 2**28, 0.25
#: Repetitions of what is measured once for all layers.
_MANY = 25


@dataclass(frozen=True)
class _Growth:
    """Exponents in the size of a layer, inputs and outputs together: of the state's bytes and of multiplications."""

    state: int
    update: int
    statistics: int
    refresh: int


_FLAT, _DENSE = _Growth(1, 2, 1, 1), _Growth(2, 3, 2, 3)
_GROWTH = {"diagonal": _FLAT, "unit": _Growth(3, 3, 3, 4), "layer": _Growth(4, 4, 4, 6)}


class Trial:
    """The operations of one layer under one setting.

    Args:
        match: the site; its own settings do not matter.
        seen: one batch in it.
        settings: of the local Fisher layer.
        base: name of the base optimizer.
        memory: that the local Fisher layer takes.
        other_work: done before what is done now and then.
    """

    def __init__(
        self,
        match: Match,
        seen: Observation,
        settings: FisherSettings,
        base: str,
        memory: Prediction,
        other_work: OtherWork,
    ):
        self._settings, self._base, self._memory = canonical(settings), base, memory
        self._device, self._shape = match.parameters[0].device, match.site.shape
        self._layer = specimen(match, seen)
        self._other_work = other_work
        self._rigs: dict[int, Rig] = {}

    def timed(self, operation: str) -> Timing:
        """Seconds of one of `keys.OPERATIONS`."""
        if operation == "plain":
            return Timing(seconds_of(PlainRig(self._layer, self._base).update, self._device))
        if operation == "first":
            return Timing(_first(self._rig(self._small()), self._device, self._other_work))
        seconds, growth = _SECONDS[operation], self._growth()
        begin, least = self._halvings(growth.state)
        exponent: int = getattr(growth, operation)
        return climb(lambda times: seconds(self._rig(times), self._device, self._other_work), begin, exponent, least)

    def _rig(self, halvings: int) -> Rig:
        if halvings not in self._rigs:
            self._rigs[halvings] = Rig(self._layer.halved(halvings), self._settings, self._base)
        return self._rigs[halvings]

    def _growth(self) -> _Growth:
        settings = self._settings
        narrow = settings.rank is not None and settings.rank + OVERSAMPLING <= _NARROW
        blocks = settings.block is not None and settings.block.isdigit()
        return _FLAT if self._shape.one_hot or narrow or blocks else _GROWTH.get(settings.granularity, _DENSE)

    def _halvings(self, growth: int) -> tuple[int, int]:
        """How often the layer is halved to begin with, and at the least: what is tried must fit into memory."""
        memory, free = self._memory, available(self._device)
        excess = memory.kept / _LARGEST
        if free is not None:
            excess = max(excess, (memory.kept + memory.peak) / max(free * _SHARE, 1))
        least = _times(excess, growth)
        begin = 0 if growth == _FLAT.state else _times(memory.state / _SMALL, growth)
        return max(begin, least), least

    def _small(self) -> int:
        """How often the layer is halved until an update takes no time but that of its code."""
        weights = sum(parameter.nbytes for parameter in self._layer.parameters)
        return max(self._halvings(self._growth().state)[0], _times(weights / _SMALL, 2))


def _times(excess: float, growth: int) -> int:
    """How often a size is halved until what grows with that exponent is no larger than 1."""
    return max(0, math.ceil(math.log2(max(excess, 1)) / growth))


def _first(rig: Rig, device: torch.device, other_work: OtherWork) -> float:
    in_a_row = seconds_of(rig.update, device)
    return max(0.0, seconds_of_rare(rig.update, device, other_work.step, _MANY) - in_a_row)


def _update(rig: Rig, device: torch.device, other_work: OtherWork) -> float:
    return seconds_of(rig.update, device)


def _statistics(rig: Rig, device: torch.device, other_work: OtherWork) -> float:
    return seconds_of_rare(rig.statistics, device, other_work)


def _refresh(rig: Rig, device: torch.device, other_work: OtherWork) -> float:
    """Without the update that follows on it."""

    def prepare() -> None:
        rig.rewind()
        other_work()
        rig.update()  # which is done in every step

    rig.settle()
    with_update = seconds_of_rare(rig.refresh, device, prepare)
    return max(0.0, with_update - seconds_of(rig.update, device))


_SECONDS: dict[str, Callable[[Rig, torch.device, OtherWork], float]] = {
    "update": _update,
    "statistics": _statistics,
    "refresh": _refresh,
}

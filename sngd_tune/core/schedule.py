"""When statistics are taken and roots refreshed: pure functions of the step, so that a resumed run needs no memory.

Steps count optimizer steps from 0, the statistics-only batches at the start not included (they have negative steps).
Early on all layers go together; their regular statistics and refreshes are staggered (`staggered`), so that no step
pays for all of them.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from sngd_tune.settings import FisherSettings

__all__ = ["SCHEDULES", "Offset", "RefreshSchedule", "refresh_due", "staggered", "statistics_due"]


@dataclass(frozen=True)
class Offset:
    """Where in the intervals a layer's regular steps lie.

    Attributes:
        refresh: of the refreshes, in [0, fisher_interval).
        statistics: of the batches that enter ``G``, in [0, statistics_interval).
    """

    refresh: int = 0
    statistics: int = 0


@dataclass(frozen=True)
class RefreshSchedule:
    """A named refresh schedule.

    Attributes:
        early: whether a step before the first whole interval is a refresh, too.
        by_drift: whether a refresh is left out while ``G`` has moved by less than ``drift_threshold``.
    """

    early: Callable[[int], bool]
    by_drift: bool = False


def _never(step: int) -> bool:
    return False


def _doubling(step: int) -> bool:
    """1, 3, 7, 15, …: each distance twice the one before."""
    return (step + 1) & step == 0


SCHEDULES: dict[str, RefreshSchedule] = {
    "thinning": RefreshSchedule(early=_doubling),
    "fixed": RefreshSchedule(early=_never),
    "drift": RefreshSchedule(early=_doubling, by_drift=True),
}


def refresh_due(step: int, settings: FisherSettings, offset: Offset) -> bool:
    """Whether the root is refreshed before the parameter update of `step` (under ``"drift"``: whether it may be).

    Always at step 0 and once in every ``fisher_interval`` steps, at the offset; ``"thinning"`` and ``"drift"`` add the
    steps 1, 3, 7, 15, … up to there.
    """
    if step <= 0:
        return step == 0
    if step % settings.fisher_interval == offset.refresh:
        return True
    return step < settings.fisher_interval and SCHEDULES[settings.refresh_schedule].early(step)


def statistics_due(step: int, settings: FisherSettings, offset: Offset) -> bool:
    """Whether the batch of `step` enters ``G``: in the warm-up, at refreshes, once every ``statistics_interval``."""
    regular = step % settings.statistics_interval == offset.statistics
    return step < 0 or regular or refresh_due(step, settings, offset)


def staggered(sites: Sequence[tuple[Hashable, FisherSettings]], together: bool = False) -> list[Offset]:
    """Offsets that spread the regular steps of a model's sites over the intervals.

    Sites of one interval share its steps evenly: where each module has one site, no step has more than
    ``⌈sites / interval⌉`` refreshes or statistics. A refresh needs statistics of its own step, so both offsets are
    equal modulo the intervals' greatest common divisor: where one interval divides the other, refreshes fall on regular
    statistics. Sites of one module share their statistics, for one forward pass shows them all; so do all sites with
    drawn targets, for one backward pass does.

    Args:
        sites: module and settings of each, in the order of the model.
        together: let all sites share their statistics and spread their refreshes alone, for a model that is compiled:
            its steps with statistics run eagerly.
    """
    groups: dict[Hashable, list[Hashable]] = {}
    for module, settings in sites:
        groups.setdefault(_intervals(settings), []).append(module)
    modules = {key: {each: i for i, each in enumerate(dict.fromkeys(members))} for key, members in groups.items()}
    numbers = dict.fromkeys(groups, -1)
    offsets = []
    for module, settings in sites:
        key = _intervals(settings)
        numbers[key] += 1
        shared = together or _draws_targets(settings)
        offsets.append(_offset(settings, numbers[key], modules[key][module], len(modules[key]), shared))
    return offsets


def _intervals(settings: FisherSettings) -> Hashable:
    return settings.fisher_interval, settings.statistics_interval, _draws_targets(settings)


def _draws_targets(settings: FisherSettings) -> bool:
    return settings.needs_gradients and settings.fisher != "empirical"


def _offset(settings: FisherSettings, site: int, module: int, modules: int, shared: bool) -> Offset:
    """The residue that both offsets share spreads the modules; within one residue, neighbours take turns."""
    step = math.gcd(settings.fisher_interval, settings.statistics_interval)
    refreshes = settings.fisher_interval // step
    if shared:
        return Offset(refresh=step * (site % refreshes))
    residue = module * step // modules
    turn = module % (settings.statistics_interval // step)
    return Offset(refresh=residue + step * (site % refreshes), statistics=residue + step * turn)

"""Names for what decides the seconds of an operation, under which they are kept; different settings share some."""

from collections.abc import Callable, Sequence

from sngd_tune.core.account import Match
from sngd_tune.core.bases import make_base
from sngd_tune.core.layers.base import Shape
from sngd_tune.selection.observation import Observation
from sngd_tune.settings import FisherSettings

__all__ = ["OPERATIONS", "key", "kind"]


def key(operation: str, match: Match, seen: Observation, settings: FisherSettings, base: str) -> str:
    """The name of one of `OPERATIONS` on a layer; damping and intervals are not in it, nor is what leaves it as it is.

    Args:
        operation: what is timed.
        match: the site; its own settings do not matter.
        seen: one batch in it.
        settings: of the local Fisher layer.
        base: name of the base optimizer.
    """
    shape, weight = match.site.shape, match.parameters[0]
    if operation == "first":
        return f"first; {base}; {kind(match, settings)}"
    size = "x".join(map(str, (*shape.lead, shape.d_out, shape.d)))
    parts = f"{len(match.parameters)} of {str(weight.dtype).removeprefix('torch.')}"
    layer = f"{type(match.kind).__name__} {size}, kernel {shape.positions}, {parts}"
    return "; ".join((operation, layer, *_NAMES[operation](shape, seen, settings, base)))


def kind(match: Match, settings: FisherSettings) -> str:
    """What kind of local Fisher layer it is: updates of one kind run through the same code."""
    granularity, root = settings.granularity.partition(":")[0], _root(match.site.shape, settings)
    return root if root in ("diagonal", "nystrom") else f"{granularity}, {root}"


def _plain(shape: Shape, seen: Observation, settings: FisherSettings, base: str) -> Sequence[str]:
    return (base,)


def _update(shape: Shape, seen: Observation, settings: FisherSettings, base: str) -> Sequence[str]:
    kept, root = _kept(shape, settings), _root(shape, settings)
    if not make_base(base).scales_with_gradients:
        return base, kept, root
    # SGD multiplies by the inverse, whichever root it is of; Adam goes into the root's coordinates and back.
    return base, kept, root if root in ("diagonal", "nystrom") else "dense", settings.step_bound


def _statistics(shape: Shape, seen: Observation, settings: FisherSettings, base: str) -> Sequence[str]:
    passes = (f"{type(each.inputs).__name__} {each.inputs.count}/{each.inputs.examples}" for each in seen.passes)
    return _kept(shape, settings), settings.sharing, f"{settings.positions} positions", *passes


def _refresh(shape: Shape, seen: Observation, settings: FisherSettings, base: str) -> Sequence[str]:
    retained = "whole rank" if settings.retained_trace is None else "retained trace"
    return base, _kept(shape, settings), _root(shape, settings), retained, settings.root_scale


def _kept(shape: Shape, settings: FisherSettings) -> str:
    """What the state holds."""
    if _diagonal(shape, settings):
        return "diagonal"
    return settings.granularity if settings.rank is None else f"rank {min(settings.rank, shape.d)}"


def _root(shape: Shape, settings: FisherSettings) -> str:
    return "diagonal" if _diagonal(shape, settings) else str(settings.root)


def _diagonal(shape: Shape, settings: FisherSettings) -> bool:
    return shape.one_hot or settings.granularity == "diagonal"


_NAMES: dict[str, Callable[[Shape, Observation, FisherSettings, str], Sequence[str]]] = {
    "plain": _plain,
    "update": _update,
    "statistics": _statistics,
    "refresh": _refresh,
}

#: ``plain`` moves a layer without a local Fisher layer, ``update`` with one. ``first`` is what the update of the first
#: layer of a kind takes longer, as its code is not in the caches. ``refresh`` leaves out the update behind it, but not
#: what that one takes longer on a new root.
OPERATIONS = ("first", *_NAMES)

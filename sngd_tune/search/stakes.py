"""Which layers of a selection a search should look at again, and what it may give them.

The expected decreases of a probe are good to some 15 %: what lies that close to a layer's best cannot be told from it,
while its price can. So the layers to look at are those with the largest share of the expected decrease among those with
several such *contenders*. All combinations of what is offered stay within the selection's budgets of time and memory.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import of_layers
from sngd_tune.records.selection import Alternative, LayerChoice, SelectionRecord
from sngd_tune.records.study import SpaceEntry
from sngd_tune.search.flat import layer_values
from sngd_tune.settings import NONE

__all__ = ["MOST", "Stake", "described", "entries", "stakes"]

#: Layers that are looked at, at most: each adds a dimension or two to what ten trials can see.
MOST = 3
#: Share of the whole decrease from which on a layer is worth a dimension.
_LEAST = 0.05
#: Share of a layer's best gain from which on an alternative may be as good.
_CLOSE = 0.85
#: What the name of an alternative says.
_FORM = ("granularity", "block", "root", "rank")

_Values = dict[str, Any]


@dataclass(frozen=True)
class Stake:
    """A layer worth a search.

    Attributes:
        layer: name of the site.
        share: of the whole expected decrease, in (0, 1].
        options: plain parameters of what it may have, at least two; first what was chosen, the others by price.
        names: of these, for people.
    """

    layer: str
    share: float
    options: tuple[_Values, ...]
    names: tuple[str, ...]


@dataclass
class _Room:
    """What the budgets leave: seconds of a step and bytes."""

    seconds: float
    bytes: float

    @classmethod
    def beside(cls, record: SelectionRecord) -> "_Room":
        kept = sum(choice.bytes for choice in record.layers)
        return cls(
            float("inf")
            if record.step_budget is None
            else record.step_budget * record.step.sgd - record.step.predicted,
            float("inf") if record.memory_budget is None else record.memory_budget - kept,
        )

    def holds(self, choice: LayerChoice, other: Alternative) -> bool:
        """Whether a layer could have that in the place of what it has."""
        return other.seconds - choice.seconds <= self.seconds and other.bytes - choice.bytes <= self.bytes

    def take(self, choice: LayerChoice, others: Sequence[Alternative]) -> None:
        """Keep room for the dearest of these."""
        self.seconds -= max(0.0, *(other.seconds - choice.seconds for other in others))
        self.bytes -= max(0, *(other.bytes - choice.bytes for other in others))


def stakes(record: SelectionRecord) -> list[Stake]:
    """The layers to look at, the largest share first; none where the selection weighed no alternatives."""
    progress = {probe.layer: probe.progress for probe in record.probes}
    decrease = {choice.layer: progress.get(choice.layer, 0.0) * choice.gain for choice in record.layers}
    whole = sum(decrease.values())
    room = _Room.beside(record)
    found: list[Stake] = []
    for choice in sorted(record.layers, key=lambda each: -decrease[each.layer]):
        others = _contenders(choice, room)
        share = decrease[choice.layer] / whole if whole > 0 else 0.0
        if not others or share < _LEAST or len(found) == MOST:
            continue
        room.take(choice, others)
        options = (_chosen(choice, record), *(described(other) for other in others))
        names = (choice.name, *(other.name for other in others))
        found.append(Stake(choice.layer, share, options, names))
    return found


def _contenders(choice: LayerChoice, room: _Room) -> list[Alternative]:
    """Alternatives that fit and gain nearly as much as the best that does, cheapest first; the choice left out."""
    within = [other for other in choice.alternatives if room.holds(choice, other)]
    best = max((other.gain for other in within), default=0.0)
    close = [other for other in within if other.gain >= _CLOSE * best and other.name != choice.name]
    return sorted(close, key=lambda other: (other.seconds, other.bytes))


def _chosen(choice: LayerChoice, record: SelectionRecord) -> _Values:
    if choice.settings is None:
        return {"granularity": NONE}
    values = layer_values(choice.settings, {"base": record.optimizer.get("base", "adamw")})
    return {name: values[name] for name in (*_FORM, "relative_damping") if name in values}


def described(other: Alternative) -> _Values:
    """An alternative as parameters; dense roots are symmetric, as `selection.candidates` has them."""
    match = re.fullmatch(r"(diagonal|input|block)(?: rank (\d+)|:(\d+|channel|position))?", other.name)
    if match is None:
        raise ConfigurationError(f"alternative {other.name!r}: names no granularity that a search knows; take it out")
    kind, rank, block = match.groups()
    damping = {"relative_damping": other.relative_damping}
    if kind == "diagonal":
        return {"granularity": kind, **damping}
    if rank is not None:
        return {"granularity": kind, "root": "nystrom", "rank": int(rank), **damping}
    if block is None or not block.isdecimal():
        return {"granularity": other.name, "root": "eigh", **damping}
    return {"granularity": kind, "block": int(block), "root": "eigh", **damping}


def entries(stake: Stake, pattern: str) -> Iterator[tuple[str, list[SpaceEntry]]]:
    """What is searched for a layer: parameters of its own, under their names in a space.

    One parameter decides between kinds of settings, the granularity or else the root; ranks and blocks are searched
    within the kind that has them, and each kind comes with its root and its damping. Of several kinds of one
    granularity the chosen one stands for it, or else the cheapest. Nothing where all options are one.
    """
    deciding = next((name for name in ("granularity", "root") if len(_distinct(stake.options, name)) > 1), None)
    groups = _groups(stake.options, deciding)
    if deciding is not None:
        yield of_layers(deciding, pattern), [SpaceEntry(choices=tuple(groups))]
    for name in (*(form for form in _FORM if form != deciding), "relative_damping"):
        found = {kind: _distinct(options, name) for kind, options in groups.items()}
        if name == "relative_damping":
            found = {kind: values[:1] for kind, values in found.items()}  # that of the first stands for its kind
        if len(set(map(tuple, found.values()))) == 1 and len(next(iter(found.values()))) < 2:
            continue  # the same everywhere: nothing to search
        label = None if deciding is None else of_layers(deciding, pattern)
        yield of_layers(name, pattern), [_entry(name, values, label, kind) for kind, values in found.items() if values]


def _groups(options: Sequence[_Values], deciding: str | None) -> Mapping[Any, list[_Values]]:
    """Options by the value that decides, each group with one root."""
    groups: dict[Any, list[_Values]] = {}
    for values in options:
        group = groups.setdefault(None if deciding is None else values[deciding], [])
        if not group or group[0].get("root") == values.get("root"):
            group.append(values)
    return groups


def _distinct(options: Sequence[_Values], name: str) -> list[Any]:
    return list(dict.fromkeys(values[name] for values in options if name in values))


def _entry(name: str, values: Sequence[Any], parent: str | None, kind: Any) -> SpaceEntry:
    """One value, some, or a range of ranks: those in between lie between in price, too."""
    when: dict[str, tuple[Any, ...]] = {} if parent is None else {parent: (kind,)}
    if name == "rank" and len(values) > 1:
        return SpaceEntry(low=float(min(values)), high=float(max(values)), log=True, when=when)
    return SpaceEntry(choices=tuple(sorted(values)), when=when)

"""The choice: one option for each layer, by expected decrease, seconds and bytes.

A layer's options are its candidates at several refresh intervals, each with the damping that suits the interval, and no
local Fisher layer at all. Expected decreases of layers add up (the Fisher matrix is taken as block-diagonal), and so do
seconds and bytes: a multiple-choice knapsack. Without a budget the choice is the one with the best expected decrease
*per second*, since that, and not the decrease of a step, is what training waits for.

What a probe sees of one layer is noisy, and in some layers no gradient rises above the noise at all. `_PRIOR` of the
network's decrease is therefore spread evenly over its layers, with the gain that each kind of option has in the whole
network: where a layer shows nothing of its own it gets what is good elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.selection import Alternative, LayerChoice
from sngd_tune.selection.candidates import Candidate
from sngd_tune.selection.knapsack import Front, Option, Point, front
from sngd_tune.settings import FisherSettings

__all__ = ["INTERVALS", "Budget", "Choice", "LayerOptions", "Price", "choose", "layer_options"]

#: Steps between refreshes that are weighed; statistics come twice as often.
INTERVALS = (10, 20, 50, 100, 200)

_PRIOR = 0.05

#: Of a layer under settings: seconds of a step, bytes.
Price = Callable[[FisherSettings], tuple[float, int]]


@dataclass(frozen=True)
class Budget:
    """What a step may cost.

    Attributes:
        plain: seconds of a step with the plain base optimizer, > 0.
        sgd: seconds of a step with plain SGD, > 0.
        common: seconds that local Fisher layers take together, apart from what each of them takes, ≥ 0.
        step: largest step over SGD's, ≥ 1; None: no limit, the best decrease per second is sought.
        memory: bytes that local Fisher layers may keep; None: no limit.
    """

    plain: float
    sgd: float
    common: float = 0.0
    step: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.step is not None and not self.step >= 1:
            raise ConfigurationError(
                f"step_budget={self.step!r}: must be ≥ 1, as it is a multiple of a step with plain SGD; try 1.5"
            )
        if self.memory is not None and not self.memory > 0:
            raise ConfigurationError(f"memory_budget={self.memory!r}: must be > 0 bytes; leave it out for no limit")

    @property
    def seconds(self) -> float:
        """What is left for local Fisher layers; ∞ without a limit."""
        return float("inf") if self.step is None else self.step * self.sgd - self.plain - self.common


@dataclass(frozen=True)
class LayerOptions:
    """All options of a layer; the first is to train without a local Fisher layer.

    Attributes:
        layer: name of the site.
        plain: expected decrease without one.
        names: of the options; ``"none"`` first.
        settings: of each.
        progress: expected decrease with each.
        prices: seconds of a step and bytes of each.
    """

    layer: str
    plain: float
    names: tuple[str, ...]
    settings: tuple[FisherSettings | None, ...]
    progress: tuple[float, ...]
    prices: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        layers: in the order given.
        progress: expected decrease of a step over that without local Fisher layers, ≥ 0 (the prior left out).
        bound: what no choice within the budget exceeds, in the same units.
        seconds: of a step, beyond the plain base optimizer's.
    """

    layers: tuple[LayerChoice, ...]
    progress: float
    bound: float
    seconds: float


def layer_options(layer: str, plain: float, candidates: Sequence[Candidate], price: Price) -> LayerOptions:
    """Candidates × intervals, priced.

    Args:
        layer: name of the site.
        plain: expected decrease without a local Fisher layer.
        candidates: of the layer.
        price: of settings in it.
    """
    names, settings, progress, prices = ["none"], [None], [plain], [(0.0, 0)]
    for candidate in candidates:
        for interval in INTERVALS:
            decrease, damping = candidate.at_interval(interval)
            found = replace(
                candidate.settings,
                relative_damping=damping,
                fisher_interval=interval,
                statistics_interval=max(interval // 2, 1),
            )
            names.append(candidate.name)
            settings.append(found)  # type: ignore[arg-type]
            progress.append(decrease)
            prices.append(price(found))
    return LayerOptions(layer, plain, tuple(names), tuple(settings), tuple(progress), tuple(prices))


def choose(layers: Sequence[LayerOptions], budget: Budget) -> Choice:
    """The best option for each layer within the budget.

    Raises:
        ConfigurationError: no choice with a local Fisher layer is within it; the message has the cheapest one.
    """
    values = _values(layers)
    found = front(
        [
            [Option(value, *price) for value, price in zip(own, layer.prices, strict=True)]
            for own, layer in zip(values, layers, strict=True)
        ]
    )
    point = _best(found, layers, budget)
    plain = sum(layer.plain for layer in layers) or 1.0
    progress = sum(layer.progress[i] for layer, i in zip(layers, point.chosen, strict=True))
    bound = point.value if found.exact else max(found.bound(_spent(point, budget)), point.value)
    return Choice(
        tuple(_explained(layer, i, budget) for layer, i in zip(layers, point.chosen, strict=True)),
        progress / plain,
        progress / plain * bound / point.value if point.value > 0 else progress / plain,
        point.seconds,
    )


def _best(found: Front, layers: Sequence[LayerOptions], budget: Budget) -> Point:
    memory = float("inf") if budget.memory is None else float(budget.memory)

    def per_second(point: Point) -> float:
        return point.value / (budget.plain + budget.common + point.seconds) if any(point.chosen) else 0.0

    def decrease(point: Point) -> float:
        return point.value if any(point.chosen) else -1.0

    best = found.best(budget.seconds, memory, per_second if budget.step is None else decrease)
    if best is None or not any(best.chosen):
        raise ConfigurationError(_infeasible(layers, budget))
    return best


def _spent(point: Point, budget: Budget) -> float:
    return point.seconds if budget.step is None else budget.seconds


def _infeasible(layers: Sequence[LayerOptions], budget: Budget) -> str:
    """What the cheapest choice with a local Fisher layer costs."""
    cheapest = min(
        ((price, layer.layer, name) for layer in layers for name, price in zip(layer.names, layer.prices, strict=True)
         if name != "none"),
        default=((0.0, 0), "", ""),
    )  # fmt: skip
    (seconds, size), layer, name = cheapest
    least = (budget.plain + budget.common + seconds) / budget.sgd
    limits = [f"step_budget={budget.step:g}"] if budget.step is not None else []
    limits += [f"memory_budget={budget.memory}"] if budget.memory is not None and size > budget.memory else []
    return (
        f"{', '.join(limits)}: no local Fisher layer is within it; the cheapest is {name} in {layer or 'the model'},"
        f" with a step of {least:.2f} × SGD's and {size} bytes (the plain base optimizer's alone is"
        f" {budget.plain / budget.sgd:.2f} ×); raise the budget to that at least"
    )


def _values(layers: Sequence[LayerOptions]) -> list[list[float]]:
    """Expected decreases, with the prior."""
    whole = sum(layer.plain for layer in layers)
    gains = _gains(layers, whole)
    share = _PRIOR * whole / len(layers) if whole > 0 else 1.0
    return [
        [own + share * gains[key] for own, key in zip(layer.progress, _keys(layer), strict=True)] for layer in layers
    ]


def _keys(layer: LayerOptions) -> list[tuple[str, int]]:
    """What options of different layers have in common: name and interval."""
    return [(n, s.fisher_interval if s is not None else 0) for n, s in zip(layer.names, layer.settings, strict=True)]


def _gains(layers: Sequence[LayerOptions], whole: float) -> Mapping[tuple[str, int], float]:
    """Gain of each kind of option in the whole network; 1 for none.

    A layer that is too narrow for a rank or a block would have everything with it, so its widest option stands there:
    else kinds that few layers can have would be judged by these alone.
    """
    progress: dict[tuple[str, int], float] = dict.fromkeys((key for layer in layers for key in _keys(layer)), 0.0)
    for layer in layers:
        own = dict(zip(_keys(layer), layer.progress, strict=True))
        widest = {interval: value for (_, interval), value in own.items()}  # candidates end with the widest
        for key in progress:
            progress[key] += own.get(key, widest.get(key[1], layer.plain))
    return {key: value / whole if whole > 0 else 1.0 for key, value in progress.items()}


def _explained(layer: LayerOptions, chosen: int, budget: Budget) -> LayerChoice:
    plain = layer.plain if layer.plain > 0 else float("inf")
    gain = layer.progress[chosen] / plain if layer.plain > 0 else 1.0
    seconds, size = layer.prices[chosen]
    interval = layer.settings[chosen].fisher_interval if layer.settings[chosen] is not None else None  # type: ignore[union-attr]
    alternatives = tuple(_alternatives(layer, plain, interval))
    return LayerChoice(
        layer=layer.layer,
        settings=layer.settings[chosen],
        name=layer.names[chosen],
        gain=gain,
        seconds=seconds,
        bytes=size,
        reason=_reason(layer, chosen, alternatives, budget),
        alternatives=alternatives,
    )


def _alternatives(layer: LayerOptions, plain: float, interval: int | None) -> list[Alternative]:
    """The best of each name at the chosen interval, or at the default one."""
    at = interval or FisherSettings().fisher_interval
    rows = zip(layer.names, layer.settings, layer.progress, layer.prices, strict=True)
    return [
        Alternative(
            name=name,
            relative_damping=settings.relative_damping,
            gain=progress / plain if layer.plain > 0 else 1.0,
            seconds=price[0],
            bytes=price[1],
        )
        for name, settings, progress, price in rows
        if settings is not None and settings.fisher_interval == at
    ]


def _reason(layer: LayerOptions, chosen: int, alternatives: Sequence[Alternative], budget: Budget) -> str:
    """Why, in words: what it gains for what, and what the strongest other would have."""
    seconds = layer.prices[chosen][0]
    strongest = max(alternatives, key=lambda each: each.gain, default=None)
    if layer.plain <= 0:
        own = "no gradient of its own rises above the noise of these batches; it gets what the others gain most from"
    elif layer.names[chosen] == "none":
        own = "nothing gains enough here for its price"
    else:
        own = f"expected decrease × {layer.progress[chosen] / layer.plain:.1f} for {_share(seconds, budget)} of a step"
    if strongest is None or strongest.name == layer.names[chosen] or layer.plain <= 0:
        return own
    return f"{own}; {strongest.name} has × {strongest.gain:.1f} for {_share(strongest.seconds, budget)}"


def _share(seconds: float, budget: Budget) -> str:
    return f"{100 * seconds / budget.plain:.1f} %"

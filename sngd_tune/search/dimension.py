"""One searched parameter under one condition: its values, its Optuna distribution and its own rules."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import check_value, parameter
from sngd_tune.records.study import SpaceEntry

__all__ = ["Dimension", "entry_problems"]

_TOLERANCE = 1e-9  # of a step: 0.1 + 0.2 is a multiple of 0.1


@dataclass(frozen=True)
class Dimension:
    """A checked entry of the space.

    Attributes:
        name: the parameter, with its pattern where it is one of single layers.
        label: its name towards Optuna, which keeps one distribution a name: the plain name, or ``lr[base=adamw]``
            where a parameter has several alternatives.
        distribution: where values come from.
        when: parents and the values under which the entry applies.
    """

    name: str
    label: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]]

    @classmethod
    def from_entry(cls, name: str, entry: SpaceEntry, *, alternatives: bool) -> "Dimension":
        """A dimension from an entry without `entry_problems`."""
        label = f"{name}[{condition_text(entry.when)}]" if alternatives else name
        return cls(name, label, _distribution(name, entry), dict(entry.when))

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether every condition holds under these values; a parent that is absent fails it."""
        return all(parent in values and values[parent] in allowed for parent, allowed in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value from the trial's sampler."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.label, choices)
            case IntDistribution() as d:
                return trial.suggest_int(self.label, d.low, d.high, step=d.step, log=d.log)
            case FloatDistribution() as d:
                return trial.suggest_float(self.label, d.low, d.high, step=d.step, log=d.log)
        raise TypeError(f"{self.distribution!r}: not a distribution of a space")

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The values of a list, None of a range."""
        return tuple(self.distribution.choices) if isinstance(self.distribution, CategoricalDistribution) else None

    @property
    def least(self) -> Any:
        """The low end of a range; of choices the smallest number or the first word."""
        if isinstance(self.distribution, IntDistribution | FloatDistribution):
            return self.distribution.low
        choices = self.choices or ()
        return choices[0] if parameter(self.name).kind == "choice" else min(choices)

    @property
    def finite(self) -> bool:
        """Whether its values can be counted."""
        return not isinstance(self.distribution, FloatDistribution) or self.distribution.step is not None

    @property
    def span(self) -> str:
        """Range or choices as text."""
        if isinstance(self.distribution, IntDistribution | FloatDistribution):
            return f"{self.distribution.low:g} … {self.distribution.high:g}"
        return ", ".join(map(str, self.choices or ()))

    @property
    def scale(self) -> str:
        """``choices``, ``log``, ``linear`` or the step."""
        match self.distribution:
            case CategoricalDistribution():
                return "choices"
            case IntDistribution(log=True) | FloatDistribution(log=True):
                return "log"
            case IntDistribution(step=1) | FloatDistribution(step=None):
                return "linear"
            case IntDistribution(step=step) | FloatDistribution(step=step):
                return f"step {step:g}"
        raise TypeError(f"{self.distribution!r}: not a distribution of a space")

    def holds(self, value: Any) -> bool:
        """Whether a value of the right type is one that the entry can propose."""
        d = self.distribution
        if not isinstance(d, IntDistribution | FloatDistribution):
            return value in (self.choices or ())
        return d.low <= value <= d.high and (d.step is None or d.log or _is_multiple(value - d.low, d.step))


def condition_text(when: Mapping[str, tuple[Any, ...]]) -> str:
    """``base=adamw`` or ``granularity=block|input,form=fused``."""
    return ",".join(f"{parent}={'|'.join(map(str, values))}" for parent, values in when.items())


def entry_problems(name: str, entry: SpaceEntry) -> Iterator[str]:
    """What is wrong with an entry by itself."""
    try:
        known = parameter(name)
    except ConfigurationError as error:
        yield str(error).removeprefix(f"{name!r}: ")
        return
    if entry.choices is not None:
        yield from _choice_problems(name, entry)
    elif known.kind == "choice":
        yield f"needs choices: [...], from {', '.join(known.choices)}"
    elif entry.low is None or entry.high is None:
        yield "needs either low and high, or choices; a single value belongs under fixed"
    else:
        yield from _range_problems(name, entry, entry.low, entry.high)


def _choice_problems(name: str, entry: SpaceEntry) -> Iterator[str]:
    choices = entry.choices or ()
    if entry.low is not None or entry.high is not None or entry.log or entry.step is not None:
        yield "has choices and parts of a range (low, high, log, step); keep one of the two"
    if not choices:
        yield "choices is empty; name at least one value"
    if len(set(choices)) != len(choices):
        yield f"choices={list(choices)!r}: each value must stand once"
    for value in choices:
        yield from _value_problems(name, value)


def _range_problems(name: str, entry: SpaceEntry, low: float, high: float) -> Iterator[str]:
    if not low < high:
        yield f"low={low:g}: must be < high={high:g}; a single value belongs under fixed"
    if entry.log and not low > 0:
        yield f"low={low:g}: must be > 0 on a log scale; try 1e-6, or leave log out"
    if entry.log and entry.step is not None:
        yield f"step={entry.step:g}: cannot stand beside log: true; leave one of them out"
    for end in (low, high):
        yield from _value_problems(name, end)
    yield from _step_problems(name, entry, low, high)


def _step_problems(name: str, entry: SpaceEntry, low: float, high: float) -> Iterator[str]:
    if entry.step is None:
        return
    if not entry.step > 0:
        yield f"step={entry.step:g}: must be > 0"
    elif parameter(name).kind == "int" and entry.step != int(entry.step):
        yield f"step={entry.step:g}: must be an integer, as {name} is one"
    elif low < high and not _is_multiple(high - low, entry.step):
        yield f"step={entry.step:g}: must divide high − low = {high - low:g}, or high is never reached"


def _value_problems(name: str, value: Any) -> Iterator[str]:
    try:
        check_value(name, value)
    except ConfigurationError as error:
        yield str(error)


def _is_multiple(distance: float, step: float) -> bool:
    return abs(distance / step - round(distance / step)) <= _TOLERANCE * max(1.0, abs(distance / step))


def _distribution(name: str, entry: SpaceEntry) -> BaseDistribution:
    if entry.choices is not None:
        return CategoricalDistribution([check_value(name, value) for value in entry.choices])
    low, high = check_value(name, entry.low), check_value(name, entry.high)
    if parameter(name).kind == "int":
        return IntDistribution(low, high, log=entry.log, step=int(entry.step or 1))
    return FloatDistribution(low, high, log=entry.log, step=entry.step)

"""A selection's record out of plain values, each of its type and in its range.

What was measured may be NaN or infinite: a training that diverged has no loss, a singular matrix no condition number.
What is trained with may not.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sngd_tune.errors import ConfigurationError, SettingsError
from sngd_tune.settings import FisherSettings

__all__ = ["from_plain", "listed", "mapping"]

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class _Range:
    """A rule for a number, in words, and whether it holds."""

    rule: str
    holds: Callable[[float], bool]


#: Shares are sums of float32, so the last digits of a whole are not to be relied on.
_ROUNDING = 1e-3

# Said in the negative, so that NaN passes.
_COUNT = _Range("≥ 1", lambda value: value >= 1)
_MEASURED = _Range("≥ 0", lambda value: not value < 0)
_TIMED = _Range("> 0", lambda value: not value <= 0)
_SHARE = _Range("in [0, 1]", lambda value: not (value < 0 or value > 1 + _ROUNDING))
_POSITIVE = _Range("finite and > 0", lambda value: 0 < value < math.inf)
_NOT_NEGATIVE = _Range("finite and ≥ 0", lambda value: 0 <= value < math.inf)
_BUDGET = _Range("finite and ≥ 1", lambda value: 1 <= value < math.inf)

#: By field; of a mapping, each of its values. The name of a field means the same in every record.
_RANGES: Mapping[str, _Range] = {
    **dict.fromkeys(("inputs", "outputs", "matrices", "steps", "memory_budget"), _COUNT),
    **dict.fromkeys(("positions", "effective_rank", "condition_number", "output_effective_rank"), _MEASURED),
    **dict.fromkeys(("batch_noise", "least_damping", "drift", "output_gain", "progress", "gain", "bound"), _MEASURED),
    **dict.fromkeys(("bytes", "step_seconds"), _MEASURED),
    **dict.fromkeys(("sgd", "plain", "predicted", "measured"), _TIMED),
    **dict.fromkeys(("retained_trace", "retained_gain"), _SHARE),
    **dict.fromkeys(("batch_size", "lr"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "relative_damping"), _NOT_NEGATIVE),
    "step_budget": _BUDGET,
}

_KINDS = {float: "a number", int: "a whole number", str: "a word"}


def from_plain(record: type[_Record], values: Any, place: str) -> _Record:
    """A record of this dataclass.

    Args:
        record: a dataclass whose fields are numbers, words, records, `FisherSettings`, and tuples and mappings of them.
        values: its fields as `dataclasses.asdict` gives them; lists may stand for tuples.
        place: of the values, for messages.

    Raises:
        ConfigurationError: a field that is missing, unknown, of another type or out of its range; the message names the
            place, the value and the rule.
    """
    found = mapping(values, place)
    fields = {field.name: field for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    for name in found:
        if name not in fields:
            raise ConfigurationError(f"{place}: {name!r} is unknown; known are {', '.join(fields)}")
    for name, field in fields.items():
        if name not in found and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigurationError(f"{place}: {name!r} is missing")
    hints = typing.get_type_hints(record)
    read = {name: _read(hints[name], value, f"{place}.{name}", _RANGES.get(name)) for name, value in found.items()}
    return record(**read)


def _read(kind: Any, value: Any, place: str, within: _Range | None) -> Any:
    """A value of a field of this type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # always with None
        return None if value is None else _read(parts[0], value, place, within)
    if origin is tuple:
        return tuple(_read(parts[0], each, f"{place}[{i}]", within) for i, each in enumerate(listed(value, place)))
    if origin is Mapping:
        return {
            _read(parts[0], key, place, None): _read(parts[1], each, f"{place}.{key}", within or _RANGES.get(str(key)))
            for key, each in mapping(value, place).items()
        }
    if kind is FisherSettings:
        return _settings(value, place)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_plain(kind, value, place)
    return _scalar(kind, value, place, within)


def _scalar(kind: Any, value: Any, place: str, within: _Range | None) -> Any:
    if kind is Any:  # an argument of an optimizer
        kind = float if within is not None else type(value) if type(value) in (bool, int, float) else str
    fits = isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        hint = "; YAML reads 1.0e-2 as a number, and 1e-2 as a word" if isinstance(value, str) else ""
        raise ConfigurationError(f"{place}: {value!r}: must be {_KINDS[kind]}{hint}")
    if within is not None and not within.holds(value):
        raise ConfigurationError(f"{place}: {value!r}: must be {within.rule}")
    return float(value) if kind is float else value


def _settings(value: Any, place: str) -> FisherSettings:
    try:
        return FisherSettings.from_dict(mapping(value, place))
    except SettingsError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def mapping(value: Any, place: str) -> Mapping[Any, Any]:
    """The value, where it is a mapping. Raises ConfigurationError."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{place}: {value!r:.80}: must be a mapping")
    return value


def listed(value: Any, place: str) -> list[Any] | tuple[Any, ...]:
    """The value, where it is a list. Raises ConfigurationError."""
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"{place}: {value!r:.80}: must be a list")
    return value

"""A selection as the flat parameters of a trial: what most layers share as plain values, the rest by name of the layer.

Values that have no effect where they stand (a step bound under Adam, the root of a diagonal) are no parameters there
and are left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import check_pattern, of_layers
from sngd_tune.records.parameters import PARAMETERS, is_active, nearest, ordered
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.settings import NONE, FisherSettings

__all__ = ["flat", "layer_pattern", "layer_values"]

_Values = dict[str, Any]

#: What a selection decides is said even where it is the default.
_DECIDED = frozenset(
    {
        *("granularity", "block", "root", "rank", "root_scale", "relative_damping"),
        *("fisher_interval", "statistics_interval"),
    }
)
_LONGEST = 100  # of a pattern
_ORDINARY = re.compile(r"[A-Za-z0-9_.\-\]!]")


def flat(record: SelectionRecord) -> _Values:
    """The parameters under which `TrialConfig.from_flat` has the settings of a selection, exactly.

    A layer that trains without a local Fisher layer has ``granularity@layer: none``. The batch size is the mean of
    those that the selection saw, rounded.

    Raises:
        ConfigurationError: no layer has settings, an argument of the optimizer is no parameter, or a layer's name can
            be told from another's by no pattern.
    """
    head = _head(record)
    layers = {
        choice.layer: {"granularity": NONE} if choice.settings is None else layer_values(choice.settings, head)
        for choice in record.layers
    }
    plain = _plain([values for values in layers.values() if values["granularity"] != NONE], record.subject)
    names = list(layers)
    own = {
        of_layers(name, layer_pattern(layer, names)): value
        for layer, values in layers.items()
        for name, value in values.items()
        if name not in plain or plain[name] != value
    }
    said = {name: value for name, value in plain.items() if name in _DECIDED or value != PARAMETERS[name].default}
    found = {**head, **said, **own}
    return {name: found[name] for name in ordered(found)}


def layer_values(settings: FisherSettings, beside: Mapping[str, Any]) -> _Values:
    """Settings of a layer as parameters under their plain names: those that have an effect.

    Args:
        settings: of the layer.
        beside: the optimizer's parameters.
    """
    values = {name: value for name, value in settings.to_dict().items() if value is not None}
    if settings.block is not None and settings.block.isdecimal():
        values |= {"granularity": "block", "block": int(settings.block)}
    return {name: value for name, value in values.items() if is_active(name, {**beside, **values})}


def layer_pattern(layer: str, layers: Sequence[str]) -> str:
    """The pattern that matches this layer's name and no other's.

    Raises:
        ConfigurationError: there is none, as names are too long, or have signs that patterns do not.
    """
    signs = [f"[{sign}]" if sign in "*?[" else sign if _ORDINARY.fullmatch(sign) else "?" for sign in layer]
    while sum(map(len, signs)) > _LONGEST:
        signs = ["*", *signs[2:]]
    pattern = "".join(signs)
    others = [name for name in layers if name != layer and fnmatchcase(name, pattern)]
    problem = f"matches {others[0]!r}, too" if others else check_pattern(pattern)
    if problem is not None:
        raise ConfigurationError(
            f"layer {layer!r}: has settings of its own, and {pattern!r} does not name it alone ({problem}); rename the"
            " module, with 1 to 100 letters, digits, '_' and '-'"
        )
    return pattern


def _head(record: SelectionRecord) -> _Values:
    """All that is the same for every layer."""
    values: _Values = {"optimizer": "sngd", "lr_schedule": record.lr_schedule}
    values["batch_size"] = max(1, round(record.batch_size))
    for name, value in record.optimizer.items():
        values |= dict(_argument(name, value))
    return values


def _argument(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """An argument of `SNGD` as parameters: the inverse of `records.arguments`."""
    if name == "betas":
        yield from zip(("beta1", "beta2"), value, strict=True)
    elif name == "nesterov":
        yield "momentum_kind", "nesterov" if value else "heavy_ball"
    elif name in ("base", "lr", "momentum", "weight_decay"):
        yield name, value
    else:
        known = nearest(name, ("base", "betas", "lr", "momentum", "nesterov", "weight_decay"))
        raise ConfigurationError(f"{name}={value!r}: is an argument of SNGD that no trial has{known}; take it out")


def _plain(layers: Sequence[_Values], subject: str) -> _Values:
    """Those of the layer from which all others differ least."""
    if not layers:
        raise ConfigurationError(
            f"{subject}: the selection has no local Fisher layer, so there is nothing to train with"
        )
    everywhere = set.intersection(*(set(values) for values in layers))
    # Where the default is "no such limit", no value of a layer's own could bring it back.
    shared = [
        {name: value for name, value in values.items() if name in everywhere or PARAMETERS[name].default is not None}
        for values in layers
    ]

    def differences(plain: _Values) -> int:
        return sum(plain.get(name) != value for values in layers for name, value in values.items())

    return min(shared, key=differences)

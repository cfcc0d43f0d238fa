"""The rules that the arguments of `SNGD` keep: one table."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sngd_tune.core.safety import MAX_SKIPPED
from sngd_tune.errors import SettingsError

__all__ = ["check_hyperparameters"]


def check_hyperparameters(values: Mapping[str, Any]) -> None:
    """Check arguments of `SNGD`, or values of a parameter group, by name; names without a rule are passed over.

    Raises:
        SettingsError: one breaks its rule; the message names value, rule and remedy.
    """
    betas = values.get("betas", (0.9, 0.999))
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise SettingsError(f"betas={betas!r}: must be two numbers; try (0.9, 0.999)")
    values = {**values, "betas[0]": betas[0], "betas[1]": betas[1]}
    for name, (holds, rule, remedy) in _RULES.items():
        if name in values and not holds(values[name]):
            raise SettingsError(f"{name}={values[name]!r}: must be {rule}; try {remedy}")
    if values.get("nesterov") and values.get("momentum") == 0:
        raise SettingsError(f"nesterov=True: must have momentum > 0, not {values['momentum']!r}; try momentum=0.9")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_FRACTION = (lambda x: _is_number(x) and 0 <= x < 1, "in [0, 1)")

#: name → (what holds of a good value, the rule in words, a good value); ``0 < x < inf`` catches NaN, too
_RULES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "lr": (lambda x: _is_number(x) and 0 < x < math.inf, "> 0 and finite", "0.1"),
    "momentum": (*_FRACTION, "0.9"),
    "nesterov": (lambda x: isinstance(x, bool), "True or False", "False"),
    "betas[0]": (*_FRACTION, "0.9"),
    "betas[1]": (*_FRACTION, "0.999"),
    "eps": (lambda x: _is_number(x) and 0 < x < math.inf, "> 0 and finite", "1e-8"),
    "weight_decay": (lambda x: _is_number(x) and 0 <= x < math.inf, "≥ 0 and finite", "0.0"),
    "seed": (lambda x: _is_int(x, 0), "an integer ≥ 0", "0"),
    "max_skipped": (lambda x: _is_int(x, 1), "an integer ≥ 1", str(MAX_SKIPPED)),
}

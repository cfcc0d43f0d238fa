"""The parameters that a space may search or fix: kind, range, and when each has a meaning. One table for all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.settings import (
    DAMPING_POLICIES,
    DEFAULT_RANK,
    FISHERS,
    REFRESH_SCHEDULES,
    ROOTS,
    SHARINGS,
    STEP_BOUNDS,
    FisherSettings,
)

__all__ = ["PARAMETERS", "Parameter", "check_value", "is_active", "nearest"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a trial.

    Attributes:
        kind: ``"float"``, ``"int"`` or ``"choice"``.
        low, high: closed range for numbers (None: open-ended).
        positive: True where `low` itself is excluded.
        choices: allowed values of a ``"choice"``.
        default: value where neither space nor fixed part names it.
        when: other parameters and the values under which this one has a meaning, all of which must hold.
        doc: one line, with the unit.
    """

    kind: str
    default: Any
    doc: str
    low: float | None = None
    high: float | None = None
    positive: bool = False
    choices: tuple[str, ...] = ()
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()


_SNGD = (("optimizer", ("sngd",)),)
_BETAS = (("optimizer", ("sngd", "adamw", "nadamw", "muon", "soap")),)
_MOMENTUM = (("optimizer", ("sngd", "sgd", "muon", "exact_ngd")),)
#: As a space names them: the size of ``"block"`` is a parameter of its own.
_GRANULARITIES = ("diagonal", "block", "block:channel", "block:position", "input", "unit", "kron", "layer")
_ROOTED = (*_SNGD, ("granularity", _GRANULARITIES[1:]))
_DEFAULT = FisherSettings()

PARAMETERS: dict[str, Parameter] = {
    "optimizer": Parameter(
        kind="choice",
        choices=("sngd", "sgd", "adamw", "nadamw", "muon", "soap", "exact_ngd"),
        default="sngd",
        doc="the method",
    ),
    "form": Parameter(
        kind="choice",
        choices=("fused", "explicit"),
        default="fused",
        when=_SNGD,
        doc="SNGD in place, or local Fisher layers in the model",
    ),
    "base": Parameter(
        kind="choice",
        choices=("sgd", "adamw"),
        default="adamw",
        when=_SNGD,
        doc="base optimizer in the coordinates of the reconstruction",
    ),
    "lr": Parameter(kind="float", low=0.0, positive=True, default=0.1, doc="learning rate"),
    "lr_schedule": Parameter(
        kind="choice",
        choices=("constant", "cosine", "warmup_cosine"),
        default="constant",
        doc="learning rate over the trial",
    ),
    "momentum": Parameter(
        kind="float", low=0.0, high=0.9999, default=0.9, when=_MOMENTUM, doc="momentum of SGD bases, Muon, exact_ngd"
    ),
    "momentum_kind": Parameter(
        kind="choice",
        choices=("heavy_ball", "nesterov"),
        default="heavy_ball",
        when=(("optimizer", ("sngd", "sgd")),),
        doc="of SGD bases: Polyak's momentum, or Nesterov's",
    ),
    "beta1": Parameter(
        kind="float", low=0.0, high=0.9999, default=0.9, when=_BETAS, doc="first moment decay of Adam and its kin"
    ),
    "beta2": Parameter(
        kind="float", low=0.0, high=0.999999, default=0.999, when=_BETAS, doc="second moment decay of Adam and its kin"
    ),
    "weight_decay": Parameter(kind="float", low=0.0, default=0.0, doc="decoupled; L2 for sgd"),
    "precondition_interval": Parameter(
        kind="int", low=1, default=10, when=(("optimizer", ("soap",)),), doc="steps between SOAP's new eigenbases"
    ),
    "batch_size": Parameter(kind="int", low=1, default=128, doc="examples per step"),
    "granularity": Parameter(
        kind="choice",
        choices=_GRANULARITIES,
        default=_DEFAULT.granularity,
        when=_SNGD,
        doc="reconstruction granularity",
    ),
    "block": Parameter(
        kind="int", low=1, default=64, when=(*_SNGD, ("granularity", ("block",))), doc="inputs per block"
    ),
    "fisher": Parameter(
        kind="choice",
        choices=FISHERS,
        default=_DEFAULT.fisher,
        when=(*_SNGD, ("granularity", ("unit", "kron", "layer"))),
        doc="where output gradients come from",
    ),
    "sharing": Parameter(
        kind="choice", choices=SHARINGS, default=_DEFAULT.sharing, when=_SNGD, doc="positions as examples, or averaged"
    ),
    "positions": Parameter(kind="int", low=1, default=None, when=_SNGD, doc="rows of a statistics batch, at most"),
    "root": Parameter(
        kind="choice", choices=ROOTS, default=_DEFAULT.root, when=_ROOTED, doc="how the root is computed"
    ),
    "rank": Parameter(
        kind="int",
        low=1,
        default=DEFAULT_RANK,
        when=(*_SNGD, ("granularity", ("input",)), ("root", ("nystrom",))),
        doc="eigenpairs kept, at most",
    ),
    "retained_trace": Parameter(
        kind="float",
        low=0.0,
        high=1.0,
        positive=True,
        default=None,
        when=(*_SNGD, ("granularity", ("input",)), ("root", ("nystrom",))),
        doc="share of tr G that is enough",
    ),
    "relative_damping": Parameter(
        kind="float",
        low=0.0,
        default=_DEFAULT.relative_damping,
        when=(("optimizer", ("sngd", "exact_ngd")),),
        doc="ρ in λ = ρ · mean(diag G) + absolute",
    ),
    "absolute_damping": Parameter(
        kind="float", low=0.0, default=_DEFAULT.absolute_damping, when=_SNGD, doc="absolute part of λ"
    ),
    "fisher_interval": Parameter(
        kind="int", low=1, default=_DEFAULT.fisher_interval, when=_SNGD, doc="steps between root refreshes"
    ),
    "statistics_interval": Parameter(
        kind="int", low=1, default=_DEFAULT.statistics_interval, when=_SNGD, doc="steps between statistics batches"
    ),
    "decay": Parameter(
        kind="float",
        low=0.0,
        high=0.999999,
        default=_DEFAULT.decay,
        when=_SNGD,
        doc="weight of the past in the average of G",
    ),
    "warmup_batches": Parameter(
        kind="int", low=0, default=_DEFAULT.warmup_batches, when=_SNGD, doc="statistics-only batches at the start"
    ),
    "refresh_schedule": Parameter(
        kind="choice",
        choices=REFRESH_SCHEDULES,
        default=_DEFAULT.refresh_schedule,
        when=_SNGD,
        doc="spacing of early refreshes",
    ),
    "drift_threshold": Parameter(
        kind="float",
        low=0.0,
        positive=True,
        default=_DEFAULT.drift_threshold,
        when=(*_SNGD, ("refresh_schedule", ("drift",))),
        doc="movement of G that calls for a refresh",
    ),
    "damping_policy": Parameter(
        kind="choice",
        choices=DAMPING_POLICIES,
        default=_DEFAULT.damping_policy,
        when=(*_SNGD, ("form", ("fused",))),
        doc="whether λ follows the loss",
    ),
    "step_bound": Parameter(
        kind="choice",
        choices=STEP_BOUNDS,
        default=_DEFAULT.step_bound,
        when=(*_SNGD, ("base", ("sgd",))),
        doc="bound on the step",
    ),
    "kl_bound": Parameter(
        kind="float",
        low=0.0,
        positive=True,
        default=_DEFAULT.kl_bound,
        when=(*_SNGD, ("step_bound", ("kl",))),
        doc="bound of step_bound kl",
    ),
}


def nearest(name: str, known: Any) -> str:
    """``"; did you mean 'x'?"`` for the closest known name, or the list of all where none is close."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def is_active(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a parameter has a meaning beside these values (those left out count with their defaults)."""
    for parent, allowed in PARAMETERS[name].when:
        if not is_active(parent, values) or values.get(parent, PARAMETERS[parent].default) not in allowed:
            return False
    return True


def check_value(name: str, value: Any) -> Any:
    """The value in its parameter's type.

    Raises:
        ConfigurationError: an unknown name, a wrong type, or a value out of range.
    """
    if name not in PARAMETERS:
        raise ConfigurationError(f"{name!r}: not a parameter{nearest(name, PARAMETERS)}")
    parameter = PARAMETERS[name]
    if parameter.kind == "choice":
        if value not in parameter.choices:
            raise ConfigurationError(f"{name}={value!r}: must be one of {', '.join(parameter.choices)}")
        return value
    return _check_number(name, parameter, value)


def _check_number(name: str, parameter: Parameter, value: Any) -> float | int:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (parameter.kind == "int" and value != int(value)):
        raise ConfigurationError(f"{name}={value!r}: must be a finite {parameter.kind} ({parameter.doc})")
    if parameter.low is not None and not (value > parameter.low if parameter.positive else value >= parameter.low):
        raise ConfigurationError(
            f"{name}={value!r}: must be {'>' if parameter.positive else '≥'} {parameter.low:g} ({parameter.doc})"
        )
    if parameter.high is not None and not value <= parameter.high:
        raise ConfigurationError(f"{name}={value!r}: must be ≤ {parameter.high:g} ({parameter.doc})")
    return int(value) if parameter.kind == "int" else float(value)

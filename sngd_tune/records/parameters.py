"""The parameters that a space may search or fix: kind, range, and when each has a meaning. One table for all.

Those that are fields of `FisherSettings`, and `block`, may be given for some layers only: ``rank@encoder.*`` is `rank`
for the layers whose names match the pattern, as `sngd_tune.SNGD` takes it. Such a layer sees the plain values overlaid
with its own: whether ``rank@encoder.*`` has a meaning is asked of what these layers see. A plain value that the overlay
leaves without a meaning (a rank beside ``granularity@head: kron``) is left out for them; one without a meaning beside
the plain values is left out, or refused, whatever single layers see. Of several patterns that match a layer, the first
counts of those that the trial has values for, in the order of the file, ``fixed`` before ``space``; a layer that none
matches has the plain values. ``granularity@head: none`` lets these layers train without a local Fisher layer; nothing
else of theirs has a meaning then.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import check_pattern, patterns, seen_by, split
from sngd_tune.settings import (
    DAMPING_POLICIES,
    DEFAULT_RANK,
    FISHERS,
    NONE,
    REFRESH_SCHEDULES,
    ROOT_SCALES,
    ROOTS,
    SHARINGS,
    STEP_BOUNDS,
    FisherSettings,
)

__all__ = [
    "LAYER_PARAMETERS",
    "PARAMETERS",
    "Parameter",
    "check_value",
    "conditions",
    "default_text",
    "is_active",
    "meaning",
    "nearest",
    "ordered",
    "parameter",
]


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
_KEPT = ("granularity", _GRANULARITIES)  # not none
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
    "root_scale": Parameter(
        kind="choice",
        choices=ROOT_SCALES,
        default=_DEFAULT.root_scale,
        when=_SNGD,
        doc="length of the root: of (G + λI)^-½, or 1 on average",
    ),
    "relative_damping": Parameter(
        kind="float",
        low=0.0,
        default=_DEFAULT.relative_damping,
        when=(("optimizer", ("sngd", "exact_ngd")),),
        doc="ρ in λ = ρ · mean(diag G) + absolute",
    ),
    "damping_scale": Parameter(
        kind="float",
        low=0.0,
        positive=True,
        default=1.0,
        when=_SNGD,
        doc="factor of every layer's relative damping",
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


#: Those that may be given for single layers.
LAYER_PARAMETERS = frozenset({"block", *(field.name for field in dataclasses.fields(FisherSettings))})

#: Single layers may also have none; without any local Fisher layer the method would be another.
_OF_LAYERS = {"granularity": dataclasses.replace(PARAMETERS["granularity"], choices=(*_GRANULARITIES, NONE))}


def parameter(name: str) -> Parameter:
    """The parameter of that name, which may be one of single layers.

    Raises:
        ConfigurationError: there is none, it cannot be given for single layers, or their pattern is none.
    """
    plain, pattern = split(name)
    if plain not in PARAMETERS:
        raise ConfigurationError(f"{name!r}: not a parameter{nearest(plain, PARAMETERS)}")
    if pattern is not None and plain not in LAYER_PARAMETERS:
        known = ", ".join(each for each in PARAMETERS if each in LAYER_PARAMETERS)
        raise ConfigurationError(f"{name!r}: {plain} is the same for all layers; leave @{pattern} out; not so: {known}")
    problem = check_pattern(pattern) if pattern is not None else None
    if problem is not None:
        raise ConfigurationError(f"{name!r}: {problem}")
    return PARAMETERS[plain] if pattern is None else _OF_LAYERS.get(plain, PARAMETERS[plain])


def ordered(names: Iterable[str]) -> list[str]:
    """Known names in the order of the table; those of single layers last, pattern by pattern as these appear."""
    found = list(dict.fromkeys(names))
    places = {name: place for place, name in enumerate(PARAMETERS)}
    turns: dict[str | None, int] = {pattern: turn for turn, pattern in enumerate((None, *patterns(found)))}
    return sorted(found, key=lambda name: (turns[split(name)[1]], places[split(name)[0]]))


def conditions(name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parents and the values under which a parameter has a meaning.

    For single layers SNGD alone has any, and these layers need a local Fisher layer.
    """
    plain, pattern = split(name)
    when = PARAMETERS[plain].when
    if pattern is None:
        return when
    kept = () if plain == "granularity" or "granularity" in dict(when) else (_KEPT,)
    return (*_SNGD, *kept, *(each for each in when if each[0] != "optimizer"))


def is_active(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a parameter has a meaning beside these values (those left out count with their defaults).

    One of single layers is judged beside the values as these layers see them.
    """
    return _hold(conditions(name), seen_by(values, split(name)[1]))


def _hold(needed: Iterable[tuple[str, tuple[str, ...]]], seen: Mapping[str, Any]) -> bool:
    return all(
        _hold(PARAMETERS[parent].when, seen) and seen.get(parent, PARAMETERS[parent].default) in allowed
        for parent, allowed in needed
    )


def default_text(name: str) -> str:
    """What holds where a known parameter is left out; for single layers the plain parameter does."""
    plain, pattern = split(name)
    return str(PARAMETERS[plain].default) if pattern is None else f"as {plain}"


def meaning(name: str) -> str:
    """A line on a known parameter."""
    plain, pattern = split(name)
    return PARAMETERS[plain].doc if pattern is None else f"{PARAMETERS[plain].doc}, in layers {pattern}"


def check_value(name: str, value: Any) -> Any:
    """The value in its parameter's type.

    Raises:
        ConfigurationError: as `parameter`; and for a wrong type, or a value out of range.
    """
    known = parameter(name)
    if known.kind == "choice":
        if value not in known.choices:
            raise ConfigurationError(f"{name}={value!r}: must be one of {', '.join(known.choices)}")
        return value
    return _check_number(name, known, value)


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

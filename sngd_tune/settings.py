"""`FisherSettings`: what a local Fisher layer keeps, how it is inverted, and how often.

A model has one value for all of its layers, or `LayerSettings`: one for each pattern of module names.
Standard library only, so that reading a settings file never imports torch.
Notation (`G`, `λ`, `R`, `a`, `W`) as in :mod:`sngd_tune.core`.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sngd_tune.errors import SettingsError

__all__ = [
    "DAMPING_POLICIES",
    "DEFAULT_RANK",
    "FISHERS",
    "GRANULARITIES",
    "NONE",
    "REFRESH_SCHEDULES",
    "ROOTS",
    "ROOT_SCALES",
    "SHARINGS",
    "STEP_BOUNDS",
    "FisherSettings",
    "LayerSettings",
    "ModelSettings",
    "SettingsLike",
    "as_settings",
]

GRANULARITIES = ("diagonal", "block", "input", "unit", "kron", "layer")
FISHERS = ("empirical", "sampled", "exact")
ROOTS = ("cholesky", "eigh", "eigenbasis", "denman_beavers", "newton_schulz", "nystrom")
ROOT_SCALES = ("natural", "unit")
SHARINGS = ("expand", "reduce")
DAMPING_POLICIES = ("fixed", "levenberg_marquardt")
REFRESH_SCHEDULES = ("thinning", "fixed", "drift")
STEP_BOUNDS = ("none", "graft", "kl")
DEFAULT_RANK = 16
#: What stands for settings where a layer shall train without a local Fisher layer.
NONE = "none"

_BLOCK = re.compile(r"block:([1-9][0-9]*|channel|position)")


@dataclass(frozen=True, kw_only=True)
class FisherSettings:
    """Settings of a local Fisher layer; frozen and checked on construction.

    Attributes:
        granularity: how much of the layer's Fisher matrix ``E[(g gᵀ) ⊗ (a aᵀ)]`` is kept: ``"diagonal"``
            (``diag E[a²]``), ``"block:b"`` (``E[a aᵀ]`` in diagonal blocks of ``b``; for convolutions also
            ``"block:channel"`` and ``"block:position"``, one block per input channel or per kernel position),
            ``"input"`` (all of ``E[a aᵀ]``), ``"unit"`` (``E[g_j² a aᵀ]`` for each output ``j``), ``"kron"``
            (``E[a aᵀ]`` before the layer and ``E[g gᵀ]`` after it) or ``"layer"`` (all of it: small layers only).
        fisher: where the ``g`` of ``"unit"``, ``"kron"`` and ``"layer"`` come from: ``"empirical"`` (the gradients of
            the training step, free), ``"sampled"`` (targets drawn from the model, one more backward pass on
            statistics batches) or ``"exact"`` (the expectation over targets, one backward pass per output). The other
            two need `SNGD.observe_outputs`. Of no effect where no ``g`` is kept.
        sharing: what counts as an example where a weight serves several positions (time, space; Eschenhagen et al.
            2023): ``"expand"`` (each position) or ``"reduce"`` (each example: inputs averaged, gradients summed over
            its positions; dimension 0 is the batch).
        positions: largest number of positions of a statistics batch that enter ``G``, ≥ 1, drawn evenly; None: all.
        root: how ``R`` with ``R Rᵀ = (G + λI)⁻¹`` is computed: ``"cholesky"`` (triangular, cheapest), ``"eigh"``
            (symmetric), ``"eigenbasis"`` (``V Λ^-½``: coordinates are the eigenvectors, where Adam becomes SOAP),
            ``"denman_beavers"`` (symmetric, the papers'), ``"newton_schulz"`` (symmetric, matrix products only, started
            from the last root), ``"nystrom"`` (symmetric, low rank, only with ``"input"``). Default: ``"nystrom"`` for
            ``"input"``, else ``"cholesky"``. A diagonal has one root only, so there the value makes no difference.
        rank: eigenpairs that ``"nystrom"`` keeps at most, ≥ 1; the rest becomes a scaled identity. A layer with fewer
            inputs keeps them all. Default 16 with ``"nystrom"``; not allowed with another root.
        retained_trace: share of ``tr G`` in (0, 1] that ``"nystrom"`` is content with: eigenpairs beyond it count to
            the rest. None: keep `rank` pairs whatever they carry.
        root_scale: the length of ``R``: ``"natural"`` (as above) or ``"unit"`` (``R Rᵀ = c² (G + λI)⁻¹`` with
            ``c² = mean(diag G) + λ``, for each matrix that is damped by itself; under ``"kron"`` that of the product of
            the damped factors). On Adam-like bases ``W`` moves by ``lr · direction · Rᵀ``. So under ``"natural"`` the
            best ``lr`` goes with the size of the inputs and with λ (measured: 1.0 on raw housing features, 4e-3 on
            MNIST); under ``"unit"``, where ``G = m I`` gives ``R = I``, it means what it means without a local Fisher
            layer (measured: best from 4e-3 to 1.6e-2 on every workload and damping, and on housing a loss of 0.24 in
            the place of 0.42 after 600 steps). Inputs that are multiplied leave the function's trajectory alone under
            ``"natural"`` if ``W`` is divided by the factor, under ``"unit"`` if ``W a`` is. SGD with
            ``step_bound="graft"`` is the same under both but for rounding (where a layer is several matrices, such as
            groups or units: but for the length of one beside another); with ``"none"`` the natural gradient is ``c²``
            times as long. Refused with ``"kl"`` and ``"levenberg_marquardt"``, which measure in the metric of ``G``.
        relative_damping: ρ ≥ 0 in ``λ = ρ · mean(diag G) + absolute_damping``; useful from 1e-4 to 10.
        absolute_damping: the absolute part of λ, ≥ 0, in units of squared activations.
        fisher_interval: optimizer steps between refreshes of the root, ≥ 1; the layers of a model take turns.
        statistics_interval: optimizer steps between batches that enter ``G``, ≥ 1; the layers of a model take turns.
        decay: weight of the past in the running average of ``G`` at each statistics batch, 0 ≤ decay < 1.
            The average is corrected for its start, as Adam's is.
        warmup_batches: steps at the start that only collect statistics and leave the parameters as they are, ≥ 0.
        damping_policy: ``"fixed"`` (λ as above) or ``"levenberg_marquardt"`` (λ times a factor that follows the ratio
            of actual to predicted loss reduction, from the next refresh on; `SNGD.step` needs a closure then, which it
            evaluates once more every fifth step, and `reconstruct` refuses it).
        refresh_schedule: ``"thinning"`` (after 1, 2, 4, … steps, then every ``fisher_interval``: early on ``G`` comes
            from few batches and moves fast), ``"fixed"`` (every ``fisher_interval`` from the first step) or ``"drift"``
            (as ``"thinning"``, but a layer keeps its root while its ``G`` and λ have moved by less than
            `drift_threshold`).
        drift_threshold: relative movement of ``G`` (Frobenius, estimated) or of λ that calls for a refresh under
            ``"drift"``, > 0.
        step_bound: for base optimizers whose step is proportional to the gradient (SGD): ``"graft"`` gives the
            preconditioned gradient of each layer the norm of its gradient, so that ``lr`` means what it means for
            SGD; ``"kl"`` scales the whole step down to a predicted ``η² Σ ⟨∇, (G + λI)⁻¹∇⟩ ≤ kl_bound``; ``"none"`` is
            the bare natural gradient step. Adam-like bases bound each coordinate by ``lr`` themselves.
        kl_bound: the bound of ``"kl"``, > 0.

    Raises:
        SettingsError: a value breaks its rule; the message names value, rule and remedy.

    >>> FisherSettings(granularity="block:64").root
    'cholesky'
    """

    granularity: str = "input"
    fisher: str = "empirical"
    sharing: str = "expand"
    positions: int | None = None
    root: str | None = None
    rank: int | None = None
    retained_trace: float | None = None
    root_scale: str = "natural"
    relative_damping: float = 0.1
    absolute_damping: float = 0.0
    fisher_interval: int = 50
    statistics_interval: int = 25
    decay: float = 0.9
    warmup_batches: int = 3
    damping_policy: str = "fixed"
    refresh_schedule: str = "thinning"
    drift_threshold: float = 0.1
    step_bound: str = "graft"
    kl_bound: float = 1e-3

    def __post_init__(self) -> None:
        self._check_words()
        self._check_granularity()
        self._fill_root()
        self._check_root()
        for name in ("relative_damping", "absolute_damping"):
            _require(_is_finite(getattr(self, name)) and getattr(self, name) >= 0, self, name, "finite and ≥ 0", "1e-2")
        _require(
            self.relative_damping + self.absolute_damping > 0,
            self,
            "relative_damping",
            "positive where absolute_damping is 0, as G alone is singular on most batches",
            "1e-2",
        )
        for name in ("fisher_interval", "statistics_interval"):
            value = getattr(self, name)
            _require(_is_int(value) and value >= 1, self, name, "an integer ≥ 1 (in optimizer steps)", "50")
        _require(
            _is_int(self.warmup_batches) and self.warmup_batches >= 0, self, "warmup_batches", "an integer ≥ 0", "3"
        )
        _require(_is_finite(self.decay) and 0 <= self.decay < 1, self, "decay", "in [0, 1)", "0.9")
        _require(_is_finite(self.kl_bound) and self.kl_bound > 0, self, "kl_bound", "finite and > 0", "1e-3")
        _require(_is_finite(self.drift_threshold) and self.drift_threshold > 0, self, "drift_threshold", "> 0", "0.1")
        _require(
            self.positions is None or (_is_int(self.positions) and self.positions >= 1),
            self,
            "positions",
            "an integer ≥ 1, or None for all",
            "4096",
        )
        for name, choices in _CHOICES.items():
            _require_choice(self, name, choices)
        self._check_root_scale()

    @property
    def block(self) -> str | None:
        """What follows ``"block:"``: a size, ``"channel"`` or ``"position"``; None under other granularities."""
        match = _BLOCK.fullmatch(self.granularity)
        return match[1] if match else None

    @property
    def needs_gradients(self) -> bool:
        """Whether ``G`` is made of output gradients ``g``, too."""
        return self.granularity in ("unit", "kron", "layer")

    @property
    def needs_outputs(self) -> bool:
        """Whether those ``g`` come from targets that the model draws, so that its outputs have to be observed."""
        return self.needs_gradients and self.fisher != "empirical"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers and strings; `from_dict` takes them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FisherSettings":
        """Settings from a mapping such as a YAML file holds.

        Raises:
            SettingsError: an unknown key or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise SettingsError(f"{key!r}: not a Fisher setting; known are {', '.join(sorted(known))}")
        return cls(**values)

    def _check_words(self) -> None:
        """YAML 1.1 makes a word of ``1e-2``: a rule for numbers would not say what is wrong with it."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and field.type is not str and str not in typing.get_args(field.type):
                raise SettingsError(
                    f"{field.name}={value!r}: must be a number, not a word; YAML reads 1.0e-2 as a number, and 1e-2 as"
                    " a word"
                )

    def _check_granularity(self) -> None:
        name = self.granularity
        plain = isinstance(name, str) and name in GRANULARITIES and name != "block"
        if not plain and not (isinstance(name, str) and _BLOCK.fullmatch(name)):
            rule = (
                "must be 'diagonal', 'block:b' with an integer b ≥ 1, 'block:channel', 'block:position', 'input',"
                " 'unit', 'kron' or 'layer'"
            )
            raise SettingsError(f"granularity={name!r}: {rule}; try 'input'")

    def _fill_root(self) -> None:
        """Replace the None defaults by what they stand for, so that a settings value always tells all."""
        if self.root is None:
            object.__setattr__(self, "root", "nystrom" if self.granularity == "input" else "cholesky")
        if self.root == "nystrom" and self.rank is None:
            object.__setattr__(self, "rank", DEFAULT_RANK)

    def _check_root(self) -> None:
        _require_choice(self, "root", ROOTS)
        if self.root == "nystrom":
            rule = f"another root with granularity={self.granularity!r}"
            _require(self.granularity == "input", self, "root", rule, "'cholesky'")
            _require(_is_int(self.rank) and self.rank >= 1, self, "rank", "an integer ≥ 1", str(DEFAULT_RANK))  # type: ignore[operator]
        else:
            rule = f"left out with root={self.root!r}, which keeps every eigenpair"
            _require(self.rank is None, self, "rank", rule, "root='nystrom'")
            _require(self.retained_trace is None, self, "retained_trace", rule, "root='nystrom'")
        share = self.retained_trace
        _require(share is None or (_is_finite(share) and 0 < share <= 1), self, "retained_trace", "in (0, 1]", "0.99")

    def _check_root_scale(self) -> None:
        if self.root_scale == "unit":
            rule = "with root_scale='unit', since it measures in the metric of G"
            _require(self.step_bound != "kl", self, "step_bound", f"'graft' or 'none' {rule}", "root_scale='natural'")
            _require(self.damping_policy == "fixed", self, "damping_policy", f"'fixed' {rule}", "root_scale='natural'")


@dataclass(frozen=True)
class LayerSettings(Mapping[str, FisherSettings | None]):
    """Settings by patterns of module names (`fnmatch`), frozen: a layer has those of the first pattern that matches it.

    Attributes:
        pairs: each pattern once, with its settings, in the order in which they are tried; None: its layers train
            without a local Fisher layer.
    """

    pairs: tuple[tuple[str, FisherSettings | None], ...]

    def __getitem__(self, pattern: str) -> FisherSettings | None:
        return dict(self.pairs)[pattern]

    def __iter__(self) -> Iterator[str]:
        return (pattern for pattern, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def needs_outputs(self) -> bool:
        """Whether any of them needs the model's outputs (`FisherSettings.needs_outputs`)."""
        return any(settings.needs_outputs for settings in self.values() if settings is not None)

    def to_dict(self) -> dict[str, dict[str, Any] | str]:
        """Patterns and fields as plain numbers and strings; `as_settings` takes them back."""
        return {pattern: NONE if settings is None else settings.to_dict() for pattern, settings in self.items()}


#: Settings of a model: one for all of its layers, or by pattern.
ModelSettings = FisherSettings | LayerSettings

#: What may be given for them, plain values as `yaml.safe_load` reads them included: see `as_settings`.
SettingsLike = FisherSettings | Mapping[str, Any]


_KINDS = "FisherSettings or a mapping of its fields, such as {'rank': 16}"


def as_settings(value: SettingsLike | None) -> ModelSettings:
    """The settings that a value stands for.

    Args:
        value: `FisherSettings`; a mapping of some of its fields; a mapping from module-name patterns (``"encoder.*"``)
            to either of these, of which the first that matches a layer counts, or to the word ``"none"``: its layers
            train without a local Fisher layer; or None: the defaults. A mapping is one of patterns where any of its
            values is a mapping or `FisherSettings`.

    Raises:
        SettingsError: an empty mapping, a field that does not exist or a value out of range (the message names the
            pattern that it stands under), or what is none of these.

    >>> as_settings({"granularity": "input", "rank": 8}).rank
    8
    >>> dict(as_settings({"encoder.*": {"granularity": "kron"}, "*": FisherSettings(root="eigh")}))["*"].root
    'eigh'
    """
    if value is None:
        return FisherSettings()
    if isinstance(value, FisherSettings | LayerSettings):
        return value
    if not isinstance(value, Mapping):
        raise SettingsError(f"{value!r}: must be {_KINDS}, or a mapping from module-name patterns to them")
    if not value:
        raise SettingsError("{}: names neither a setting nor a layer; try {'rank': 16}, or None for the defaults")
    if not any(isinstance(each, Mapping | FisherSettings) for each in value.values()):
        return FisherSettings.from_dict(value)
    return LayerSettings(tuple((_pattern(key), _under(key, each)) for key, each in value.items()))


def _pattern(key: object) -> str:
    if not isinstance(key, str):
        raise SettingsError(f"{key!r}: must be a word, as a pattern of module names; try {str(key)!r}, quoted in YAML")
    return key


def _under(pattern: object, value: object) -> FisherSettings | None:
    """The settings that stand under a pattern; None where there shall be none."""
    if isinstance(value, FisherSettings):
        return value
    if value == NONE:
        return None
    if not isinstance(value, Mapping):
        raise SettingsError(
            f"{pattern!r}: {value!r}: must be {_KINDS}, as it stands beside others under patterns; or {NONE!r}, for no"
            " local Fisher layer"
        )
    try:
        return FisherSettings.from_dict(value)
    except SettingsError as error:
        raise SettingsError(f"{pattern!r}: {error}") from None


_CHOICES = {
    "fisher": FISHERS,
    "root_scale": ROOT_SCALES,
    "sharing": SHARINGS,
    "damping_policy": DAMPING_POLICIES,
    "refresh_schedule": REFRESH_SCHEDULES,
    "step_bound": STEP_BOUNDS,
}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, settings: FisherSettings, name: str, rule: str, remedy: str) -> None:
    if not holds:
        raise SettingsError(f"{name}={getattr(settings, name)!r}: must be {rule}; try {remedy}")


def _require_choice(settings: FisherSettings, name: str, choices: tuple[str, ...]) -> None:
    if getattr(settings, name) not in choices:
        value = getattr(settings, name)
        raise SettingsError(f"{name}={value!r}: must be one of {', '.join(choices)}; try {choices[0]!r}")

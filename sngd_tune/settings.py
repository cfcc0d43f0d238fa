"""`FisherSettings`: what a local Fisher layer keeps, how it is inverted, and how often.

Standard library only, so that reading a settings file never imports torch.
Notation (`G`, `λ`, `R`, `a`, `W`) as in :mod:`sngd_tune.core`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sngd_tune.errors import SettingsError

__all__ = ["DEFAULT_RANK", "GRANULARITIES", "REFRESH_SCHEDULES", "ROOTS", "STEP_BOUNDS", "FisherSettings"]

GRANULARITIES = ("diagonal", "block", "input")
ROOTS = ("cholesky", "eigh", "denman_beavers", "nystrom")
REFRESH_SCHEDULES = ("thinning", "fixed")
STEP_BOUNDS = ("none", "graft", "kl")
DEFAULT_RANK = 16

_BLOCK = re.compile(r"block:([1-9][0-9]*)")


@dataclass(frozen=True, kw_only=True)
class FisherSettings:
    """Settings of a local Fisher layer; frozen and checked on construction.

    Attributes:
        granularity: how much of the layer's Fisher matrix is kept: ``"diagonal"`` (``diag E[a²]``), ``"block:b"``
            (``E[a aᵀ]`` in diagonal blocks of ``b``) or ``"input"`` (all of ``E[a aᵀ]``).
        root: how ``R`` with ``R Rᵀ = (G + λI)⁻¹`` is computed: ``"cholesky"`` (triangular, cheapest), ``"eigh"``
            (symmetric), ``"denman_beavers"`` (symmetric, the papers'), ``"nystrom"`` (symmetric, low rank, only with
            ``"input"``). Default: ``"nystrom"`` for ``"input"``, else ``"cholesky"``. A diagonal has one root only, so
            there the value makes no difference.
        rank: eigenpairs that ``"nystrom"`` keeps, ≥ 1; the rest becomes a scaled identity. A layer with fewer inputs
            keeps them all. Default 16 with ``"nystrom"``; not allowed with another root.
        relative_damping: ρ ≥ 0 in ``λ = ρ · mean(diag G) + absolute_damping``; useful from 1e-4 to 10.
        absolute_damping: the absolute part of λ, ≥ 0, in units of squared activations.
        fisher_interval: optimizer steps between refreshes of the root, ≥ 1.
        statistics_interval: optimizer steps between batches that enter ``G``, ≥ 1.
        decay: weight of the past in the running average of ``G`` at each statistics batch, 0 ≤ decay < 1.
            The average is corrected for its start, as Adam's is.
        warmup_batches: steps at the start that only collect statistics and leave the parameters as they are, ≥ 0.
        refresh_schedule: ``"thinning"`` (after 1, 2, 4, … steps, then every ``fisher_interval``: early on ``G`` comes
            from few batches and moves fast) or ``"fixed"`` (every ``fisher_interval`` from the first step).
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
    root: str | None = None
    rank: int | None = None
    relative_damping: float = 1e-2
    absolute_damping: float = 0.0
    fisher_interval: int = 50
    statistics_interval: int = 20
    decay: float = 0.9
    warmup_batches: int = 3
    refresh_schedule: str = "thinning"
    step_bound: str = "graft"
    kl_bound: float = 1e-3

    def __post_init__(self) -> None:
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
        _require_choice(self, "refresh_schedule", REFRESH_SCHEDULES)
        _require_choice(self, "step_bound", STEP_BOUNDS)

    @property
    def block_size(self) -> int | None:
        """`b` of ``"block:b"``, else None."""
        match = _BLOCK.fullmatch(self.granularity)
        return int(match[1]) if match else None

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

    def _check_granularity(self) -> None:
        name = self.granularity
        if not isinstance(name, str) or not (name in ("diagonal", "input") or _BLOCK.fullmatch(name)):
            rule = "must be 'diagonal', 'block:b' with an integer b ≥ 1, or 'input'"
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

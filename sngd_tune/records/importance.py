"""`Importance`: how much one searched parameter decided."""

from dataclasses import dataclass

__all__ = ["Importance"]


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The functional ANOVA share of one parameter.

    Attributes:
        parameter: its name; an alternative of a conditional one with its condition, ``lr[base=adamw]``.
        share: of the variance that it explains by itself, from 0 to 1, among the trials in which it is active.
        trials: completed trials behind the share: those in which the parameter is active.
    """

    parameter: str
    share: float
    trials: int

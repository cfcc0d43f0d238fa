"""`Importance`: how much one searched parameter decided."""

import re
from dataclasses import dataclass

__all__ = ["Importance"]

#: A name has brackets only in its pattern, where ``=`` never stands; in a condition it always does.
_LABEL = re.compile(r"(?P<name>\w+(?:@[^@=]+?)?)(?:\[(?P<condition>\w+(?:@[^@=]+)?=.*)\])?")


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

    @property
    def name(self) -> str:
        """The parameter without its condition."""
        match = _LABEL.fullmatch(self.parameter)
        return match["name"] if match else self.parameter

    @property
    def condition(self) -> str:
        """``base=adamw`` of an alternative; empty of a parameter without any."""
        match = _LABEL.fullmatch(self.parameter)
        return (match["condition"] or "") if match else ""

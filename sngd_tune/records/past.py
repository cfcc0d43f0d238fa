"""`PastTrial`: what a resumed search has to know of a trial that the ledger holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sngd_tune.records.outcome import Outcome

__all__ = ["PastTrial"]


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """One trial of an earlier run of the same study.

    Attributes:
        trial: its name, ``"0007"``.
        number: its number, from 0, in the order of proposals.
        parameters: the flat values it was given, fixed ones included.
        seed: of its training.
        outcome: how it ended; a trial whose outcome is not ``finished`` is run again under its own name.
        values: its objectives in the study's order, of a completed trial; else None.
        intermediate: first objective by epoch.
        attempt: the latest one.
        epochs: of it that the ledger has.
    """

    trial: str
    number: int
    parameters: Mapping[str, Any]
    seed: int
    outcome: Outcome
    values: tuple[float, ...] | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    attempt: int = 0
    epochs: int = 0

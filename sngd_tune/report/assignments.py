"""Where the parameters of trials differ, and what they share."""

from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.trial_record import TrialRecord

__all__ = ["assignments", "split_parameters"]


def split_parameters(records: Sequence[TrialRecord]) -> tuple[list[str], dict[str, Any]]:
    """Names in which the trials differ, in order of appearance, and the values they share."""
    names = list(dict.fromkeys(name for record in records for name in record.parameters))
    absent = object()
    shared = {}
    for name in names:
        values = {record.parameters.get(name, absent) for record in records}
        if len(values) == 1 and len(records) > 1:
            shared[name] = values.pop()
    return [name for name in names if name not in shared], shared


def assignments(values: Mapping[str, Any]) -> str:
    """``lr=0.1 momentum=0.9``, on one line."""
    return " ".join(f"{name}={f'{v:.3g}' if isinstance(v, float) else v}" for name, v in values.items())

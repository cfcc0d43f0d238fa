"""`Check`: one finding."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Status", "worst"]

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding; `remedy` is empty where nothing is to do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def worst(*statuses: Status) -> Status:
    """The worst of several; of none, ``"ok"``."""
    return max(statuses, key=("ok", "warn", "fail").index, default="ok")

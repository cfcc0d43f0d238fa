"""Mixed precision: what belongs to the method stays out of `torch.amp.autocast`."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

__all__ = ["outside_autocast"]

_DEVICES = ("cpu", "cuda")


def outside_autocast() -> AbstractContextManager[Any]:
    """Statistics, roots and steps in the precision of their tensors, also within a region of autocast."""
    enabled = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
    if not enabled:
        return nullcontext()
    stack = ExitStack()
    for device in enabled:
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack

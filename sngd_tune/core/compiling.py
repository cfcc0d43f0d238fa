"""`torch.compile` of a model that is observed: steps that take statistics run eagerly.

Dynamo does not look at hooks when it decides whether a compiled graph still holds (``skip_nnmodule_hook_guards``): a
graph that was made without hooks never calls those that come later, and one that was made with them never loses them.
So the model is observed in eager mode, which `torch.compiler.set_stance` switches to for the whole process, and all
other steps run the graph, which has never seen a hook: no graph break, no recompilation, statistics in the right
steps and no others.

Staggered statistics would leave hardly a step without: a compiled model takes those of all layers in the same steps.

The stance is held while any owner asks for it, and is what it was before when none does.
"""

import weakref
from typing import Any

import torch
from torch import nn

__all__ = ["is_compiled", "run_eagerly"]

_asking: dict[int, Any] = {}
_held: list[Any] = []


def run_eagerly(owner: object, wanted: bool) -> None:
    """Say whether the coming forward passes have to run eagerly; an owner that is gone asks for nothing."""
    key = id(owner)
    if wanted and key not in _asking:
        _asking[key] = weakref.finalize(owner, _release, key)
        if not _held:
            _held.append(torch.compiler.set_stance("force_eager"))
    elif not wanted and key in _asking:
        _asking[key].detach()
        _release(key)


def _release(key: int) -> None:
    _asking.pop(key, None)
    if not _asking and _held:
        _held.pop().__exit__(None, None, None)


def is_compiled(model: nn.Module) -> bool:
    """Whether this is what `torch.compile` returns, or `nn.Module.compile` was called on it."""
    return isinstance(getattr(model, "_orig_mod", None), nn.Module) or model._compiled_call_impl is not None

"""`torch.compile` of a model that is observed: steps that take statistics run eagerly.

Dynamo does not look at hooks when it decides whether a compiled graph still holds (``skip_nnmodule_hook_guards``): a
graph that was made without hooks never calls those that come later, and one that was made with them never loses them.
So the model is observed in eager mode, which `torch.compiler.set_stance` switches to for the whole process, and all
other steps run the graph, which has never seen a hook: no graph break, no recompilation, statistics in the right
steps and no others.

Staggered statistics would leave hardly a step without: a compiled model takes those of all layers in the same steps.

The stance is held while any owner asks for it. A stance of the user's, set meanwhile or before, is in force in the
other steps: ``"fail_on_recompile"`` around a training loop sees one graph.
"""

import weakref
from typing import Any

import torch
from torch import nn

__all__ = ["is_compiled", "run_eagerly"]

_asking: dict[int, Any] = {}
#: Stances that were set here, the last one in force or below a stance of the user's, which comes back to it.
_held: list[Any] = []


def run_eagerly(owner: object, wanted: bool) -> None:
    """Say whether the coming forward passes have to run eagerly; an owner that is gone asks for nothing."""
    key = id(owner)
    if wanted and key not in _asking:
        _asking[key] = weakref.finalize(owner, _release, key)
    elif not wanted and key in _asking:
        _asking.pop(key).detach()
    _bring_about()


def _release(key: int) -> None:
    _asking.pop(key, None)
    _bring_about()


def _bring_about() -> None:
    """Set the stance that is asked for, whatever blocks the user has entered and left since the last time."""
    if not _held and not _asking:
        return
    if _held and _asking and _stance_now() is _held[-1].stance:
        return
    found = torch.compiler.set_stance("force_eager")
    while _held and any(found.prev is each.stance for each in _held[:-1]):
        _held.pop()  # set inside a block that has been left
    ours = bool(_held) and found.prev is _held[-1].stance
    if _asking and not ours:
        _held.append(found)
        return
    found.__exit__(None, None, None)
    if ours and not _asking:
        _held.pop().__exit__(None, None, None)


def _stance_now() -> Any:
    """Torch has no name for it; without this one, `_bring_about` takes microseconds more."""
    return getattr(torch._dynamo.eval_frame, "_stance", None)


def is_compiled(model: nn.Module) -> bool:
    """Whether this is what `torch.compile` returns, or `nn.Module.compile` was called on it."""
    return isinstance(getattr(model, "_orig_mod", None), nn.Module) or model._compiled_call_impl is not None

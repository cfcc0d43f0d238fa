"""How the fused form sees a model's forward passes: hooks, there only in steps that take statistics."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sngd_tune.core.account import Match, attribute
from sngd_tune.core.compiling import run_eagerly
from sngd_tune.core.layers.base import Seen
from sngd_tune.core.precision import outside_autocast

__all__ = ["Observers", "Observing", "show"]


class Observing(Protocol):
    """What looks at the forward passes of a layer: its `LocalFisher`, or a probe in its place."""

    @property
    def observing(self) -> bool:
        """Whether the coming pass is of interest."""

    def follow(self, weight: Tensor) -> None:
        """Go along with the precision and the device of the layer's weight."""

    def observe(self, seen: Seen) -> None:
        """Take what one forward pass showed."""


def show(
    seen_by: Callable[..., Sequence[Seen]],
    forward: tuple[Any, ...],
    places: Sequence[int],
    fishers: Iterable[Observing],
) -> None:
    """Show a forward pass to the local Fisher layers that observe.

    Args:
        seen_by: `LayerKind.seen`.
        forward: its arguments.
        places: of the layers among the sites of the module.
        fishers: the layers.
    """
    with torch.no_grad(), outside_autocast():
        seen = seen_by(*forward)
        for place, fisher in zip(places, fishers, strict=True):
            if fisher.observing:
                fisher.observe(seen[place])


class Observers:
    """Those of a model; while one of them looks, a compiled model runs eagerly (`core.compiling`)."""

    def __init__(self, found: list[Match], layers: Mapping[str, Observing]):
        self._all = [_Observer(list(sites), layers) for _, sites in groupby(found, lambda match: match.path)]
        self._fishers = [layers[match.name] for match in found]
        self._followed: list[bool] | None = None
        self.follow_schedule()

    def follow_schedule(self) -> None:
        """Attach or detach the hooks, as the coming step needs them; most steps need what the one before did."""
        observing = [fisher.observing for fisher in self._fishers]
        if observing != self._followed:
            self._followed = observing
            for observer in self._all:
                observer.follow_schedule()
        run_eagerly(self, any(observing))

    def pause(self) -> None:
        """Look away until `follow_schedule` is called."""
        for observer in self._all:
            observer.detach()
        self._followed = None
        run_eagerly(self, False)

    def close(self) -> None:
        """Look away for good."""
        self.pause()
        self._all, self._fishers = [], []


class _Observer:
    """Shows a module's inputs to its `LocalFisher`s, by hooks that are there only in steps that take statistics.

    (A module with a hook takes torch's slower way through ``__call__``; this costs more than the hook.)
    """

    def __init__(self, found: list[Match], layers: Mapping[str, Observing]):
        self._module = found[0].module
        self._fishers = [layers[match.name] for match in found]
        self._hooks = _Hooks(found, self._fishers)
        self._handles: list[RemovableHandle] = []

    def follow_schedule(self) -> None:
        """Attach or detach the hooks, as the coming step needs them."""
        if any(fisher.observing for fisher in self._fishers):
            if not self._handles:
                self._handles = [
                    self._module.register_forward_pre_hook(_Hook(self._hooks, "before")),
                    self._module.register_forward_hook(_Hook(self._hooks, "after"), with_kwargs=True, always_call=True),
                ]
        elif self._handles:
            self.detach()

    def detach(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _Hooks:
    """What happens around a forward pass in training: the kind watches it, and tells what it has seen."""

    def __init__(self, found: list[Match], fishers: Sequence[Observing]):
        self._module = weakref.ref(found[0].module)
        self._kind = found[0].kind
        self._places = [match.place for match in found]
        self._weights = [match.site.parameters[0] for match in found]
        self._fishers = fishers
        self._stack: ExitStack | None = None
        self._record: Any = None

    def before(self, module: nn.Module, args: Any) -> None:
        """Start to watch, if this is the module itself and not a copy."""
        if self._module() is not module or not (module.training and torch.is_grad_enabled()):
            return
        self._stack = ExitStack()
        self._record = self._stack.enter_context(self._kind.watch(module))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Tell the local Fisher layers that observe; `output` is None where the forward pass raised."""
        if self._stack is None:
            return
        stack, record, self._stack, self._record = self._stack, self._record, None, None
        stack.close()
        if output is not None:
            for path, fisher in zip(self._weights, self._fishers, strict=True):
                fisher.follow(attribute(module, path))
            show(self._kind.seen, (module, args, kwargs, output, record), self._places, self._fishers)


class _Hook:
    """One of `_Hooks` as torch calls it.

    It holds a weak reference: a pickled model carries no optimizer, and an optimizer that is gone observes nothing.
    """

    def __init__(self, hooks: _Hooks | None, event: str):
        self._hooks = weakref.ref(hooks) if hooks is not None else None
        self._event = event

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        hooks = self._hooks() if self._hooks is not None else None
        if hooks is not None:
            getattr(hooks, self._event)(module, *arguments)

    def __reduce__(self) -> Any:
        return type(self), (None, self._event)

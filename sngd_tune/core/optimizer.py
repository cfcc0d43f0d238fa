"""`SNGD`: the fused form. The model stays as it is; each step is natural gradient descent on it.

The trajectory is that of `sngd_tune.reconstruct` with the same settings and the torch optimizer of the same name, to
rounding, without the extra forward work. Cost of a step over `torch.optim.SGD`: ``sngd-tune bench step``.
"""

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sngd_tune.core.account import Entry, Match, SettingsLike, account, matches
from sngd_tune.core.bases import Update, make_base
from sngd_tune.core.layers.base import Site
from sngd_tune.core.local_fisher import LocalFisher, gradient_error, make_local_fisher
from sngd_tune.core.operators import Parts
from sngd_tune.errors import ReconstructionError, SettingsError
from sngd_tune.settings import FisherSettings

__all__ = ["SNGD"]


@dataclass(frozen=True)
class _Layer:
    """A site of the model: its parameters, weight first, and its local Fisher matrix."""

    parameters: Parts
    site: Site
    fisher: LocalFisher

    def update(self) -> Update:
        """The layer's part in a step. A bias without a gradient counts as 0."""
        dtype = self.fisher.dtype
        gradients = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters)
        if gradients[0].dtype != dtype:
            gradients = tuple(gradient.to(dtype) for gradient in gradients)
        return Update(self.parameters, gradients, self.fisher.root, self.site, self.fisher.settings)


class SNGD(torch.optim.Optimizer):
    """Structured natural gradient descent on a model as it is.

    Args:
        model: its layers of the kinds in `sngd_tune.core.layers` get local Fisher layers; everything else trains with
            the base optimizer (`account` lists which and why).
        settings: one `FisherSettings`, or a mapping from module-name patterns to them. Default: `FisherSettings()`.
        lr: η > 0. With ``step_bound="graft"`` it means what it means for SGD. Default 0.1, and 1e-3 on ``"adamw"``.
        base: ``"sgd"`` or ``"adamw"``, acting in the coordinates of the reconstruction.
        momentum: of ``"sgd"``, in [0, 1).
        nesterov: Nesterov's momentum for ``"sgd"``.
        betas: of ``"adamw"``.
        eps: of ``"adamw"``, > 0.
        weight_decay: decoupled, ≥ 0: ``W`` shrinks by ``lr · weight_decay`` a step. (A scalar commutes with the
            reconstruction, so this is the same decay in both coordinates.)
        seed: of the random start of low-rank sketches.

    Raises:
        ReconstructionError: no layer of the model can get a local Fisher layer.
        SettingsError: a hyperparameter out of range, or a pattern that matches nothing.

    The first ``settings.warmup_batches`` calls of `step` only collect statistics and leave the parameters alone.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> optimizer = SNGD(model, lr=0.1)
    >>> [entry.treatment for entry in optimizer.account]
    ['local Fisher', 'local Fisher', 'local Fisher', 'local Fisher']
    """

    def __init__(
        self,
        model: nn.Module,
        settings: SettingsLike | None = None,
        *,
        lr: float | None = None,
        base: str = "sgd",
        momentum: float = 0.9,
        nesterov: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        settings = FisherSettings() if settings is None else settings
        self._base = make_base(base)
        lr = self._base.default_lr if lr is None else lr
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        _check(defaults)
        self.account: list[Entry] = account(model, settings)
        found = matches(model, settings)
        self.layers: dict[str, LocalFisher] = {m.name: make_local_fisher(m, seed + i) for i, m in enumerate(found)}
        self._by_weight = {m.parameters[0]: _Layer(m.parameters, m.site, self.layers[m.name]) for m in found}
        self._biases = {bias for m in found for bias in m.parameters[1:]}
        self._observers = [_Observer(list(sites), self.layers) for _, sites in groupby(found, lambda m: m.path)]
        super().__init__((p for p in model.parameters() if p.requires_grad), defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One natural gradient step, or one statistics-only batch during the warm-up.

        Args:
            closure: evaluates the model again and returns the loss.

        Raises:
            NonFiniteError: statistics or gradient of a layer hold NaN or infinity, found at a refresh.
            RootError: the first root of a layer fails.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._advance():
            for group in self.param_groups:
                self._update(group)
        for observer in self._observers:
            observer.follow_schedule()
        return loss

    def detach(self) -> None:
        """Stop observing the model. The optimizer can still step, with the statistics it has."""
        for observer in self._observers:
            observer.detach()
        self._observers = []

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers only: `torch.load(..., weights_only=True)` takes it."""
        return {**super().state_dict(), "fisher": {name: fisher.state_dict() for name, fisher in self.layers.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back a `state_dict`; training goes on bit for bit.

        Raises:
            ReconstructionError: it was saved from another optimizer, or from other layers.
        """
        fisher = state_dict.get("fisher")
        if fisher is None or set(fisher) != set(self.layers):
            saved = "no local Fisher layers" if fisher is None else ", ".join(sorted(fisher))
            have = ", ".join(sorted(self.layers))
            raise ReconstructionError(f"the state holds {saved}, the model {have}; build SNGD on the same model first")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "fisher"})
        for name, tensors in fisher.items():
            try:
                self.layers[name].load_state_dict(tensors)
            except RuntimeError as error:
                raise ReconstructionError(f"{name}: saved with other settings or of another shape; {error}") from error
        for observer in self._observers:
            observer.follow_schedule()

    def _advance(self) -> bool:
        """Close the step's statistics in every layer; True while warming up."""
        warming = False
        for weight, layer in self._by_weight.items():
            advance = layer.fisher.advance()
            warming = warming or advance.warming
            if advance.replaced is not None:
                _check_gradient(layer)
                self._base.rebase(self.state[weight], advance.replaced, layer.fisher.root)
        return warming

    def _update(self, group: dict[str, Any]) -> None:
        updates = [self._update_of(p) for p in group["params"] if p.grad is not None and p not in self._biases]
        if not updates:
            return
        directions = self._base.directions(updates, self.state, group)
        parameters = [parameter for update in updates for parameter in update.parameters]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, _like(directions, parameters), alpha=-group["lr"])

    def _update_of(self, parameter: Tensor) -> Update:
        layer = self._by_weight.get(parameter)
        if layer is not None:
            return layer.update()
        assert parameter.grad is not None
        return Update((parameter,), (parameter.grad,))


class _Observer:
    """Shows a module's inputs to its `LocalFisher`s, by hooks that are there only in steps that take statistics.

    (A module with a hook takes torch's slower way through ``__call__``; this costs more than the hook.)
    """

    def __init__(self, found: list[Match], layers: dict[str, LocalFisher]):
        self._module = found[0].module
        self._fishers = [layers[match.name] for match in found]
        self._hooks = _Hooks(found, self._fishers)
        self._handles: list[RemovableHandle] = []
        self.follow_schedule()

    def follow_schedule(self) -> None:
        """Attach or detach the hooks, as the coming step needs them."""
        if any(fisher.observing for fisher in self._fishers):
            if not self._handles:
                self._handles = [
                    self._module.register_forward_pre_hook(_Hook(self._hooks, "before")),
                    self._module.register_forward_hook(
                        _Hook(self._hooks, "after"), with_kwargs=True, always_call=True
                    ),
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

    def __init__(self, found: list[Match], fishers: list[LocalFisher]):
        self._module = weakref.ref(found[0].module)
        self._kind = found[0].kind
        self._places = [match.place for match in found]
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
            with torch.no_grad():
                seen = self._kind.seen(module, args, kwargs, output, record)
            for place, fisher in zip(self._places, self._fishers, strict=True):
                if fisher.observing:
                    fisher.observe(seen[place])


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



def _like(directions: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """Directions in the precision of their parameters."""
    return [d if d.dtype == p.dtype else d.to(p.dtype) for d, p in zip(directions, parameters, strict=True)]


def _check_gradient(layer: _Layer) -> None:
    """At a refresh, where a look at the numbers costs little beside the root."""
    gradient = layer.parameters[0].grad
    if gradient is not None and not bool(gradient.isfinite().all()):
        raise gradient_error(layer.fisher.name)


def _check(values: dict[str, Any]) -> None:
    """One table of rules; ``not x > 0`` catches NaN too."""
    beta1, beta2 = values["betas"]
    rules = [
        ("lr", values["lr"], values["lr"] > 0, "> 0", "0.1"),
        ("momentum", values["momentum"], 0 <= values["momentum"] < 1, "in [0, 1)", "0.9"),
        ("betas[0]", beta1, 0 <= beta1 < 1, "in [0, 1)", "0.9"),
        ("betas[1]", beta2, 0 <= beta2 < 1, "in [0, 1)", "0.999"),
        ("eps", values["eps"], values["eps"] > 0, "> 0", "1e-8"),
        ("weight_decay", values["weight_decay"], values["weight_decay"] >= 0, "≥ 0", "0.0"),
    ]
    for name, value, holds, rule, remedy in rules:
        if not holds:
            raise SettingsError(f"{name}={value!r}: must be {rule}; try {remedy}")

"""`SNGD`: the fused form. The model stays as it is; each step is natural gradient descent on it.

The trajectory is that of `sngd_tune.reconstruct` with the same settings and the torch optimizer of the same name, to
rounding, without the extra forward work. Cost of a step over `torch.optim.SGD`: ``sngd-tune bench step``.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Entry, account, matches
from sngd_tune.core.bases import Update, choose_base
from sngd_tune.core.compiling import is_compiled
from sngd_tune.core.damping import Adaptation, QuadraticModel
from sngd_tune.core.diagnostics import Diagnostics, diagnose
from sngd_tune.core.distributed import Ranks, advance_all, unwrapped
from sngd_tune.core.groups import check_layers_whole, cover
from sngd_tune.core.guard import finite_norms
from sngd_tune.core.hyperparameters import check_hyperparameters
from sngd_tune.core.likelihoods import Likelihood
from sngd_tune.core.local_fisher import LocalFisher, make_local_fisher
from sngd_tune.core.memory import check as check_memory
from sngd_tune.core.observers import Observers
from sngd_tune.core.operators import Parts
from sngd_tune.core.outputs import observe
from sngd_tune.core.precision import outside_autocast
from sngd_tune.core.safety import MAX_SKIPPED
from sngd_tune.core.scaling import unscaled
from sngd_tune.core.trained import Trained, portions, trained_by
from sngd_tune.errors import ReconstructionError
from sngd_tune.settings import SettingsLike, as_settings

__all__ = ["SNGD"]


class SNGD(torch.optim.Optimizer):
    """Structured natural gradient descent on a model as it is.

    Args:
        model: its layers of the kinds in `sngd_tune.core.layers` get local Fisher layers; everything else trains with
            the base optimizer (`account` lists which and why).
        settings: one `FisherSettings`, or a mapping from module-name patterns to them; also as plain values, such as
            YAML holds (`sngd_tune.settings.as_settings`). Default: `FisherSettings()`, of which the damping is worth a
            search first: autoencoders like 0.01, small classifiers 1.
        base: ``"adamw"`` or ``"sgd"``, acting in the coordinates of the reconstruction. Default: ``"adamw"``; ``"sgd"``
            where `momentum` or `nesterov` are given, which only it has.
        lr: η > 0. With ``"sgd"`` and ``step_bound="graft"`` it means what it means for SGD. Default 1e-3, and 0.1 on
            ``"sgd"``.
        momentum: of ``"sgd"``, in [0, 1). Default 0.9.
        nesterov: Nesterov's momentum for ``"sgd"``.
        betas: of ``"adamw"``. Default (0.9, 0.999).
        eps: of ``"adamw"``, > 0. Default 1e-8.
        weight_decay: decoupled, ≥ 0: ``W`` shrinks by ``lr · weight_decay`` a step. (A scalar commutes with the
            reconstruction, so this is the same decay in both coordinates.)
        seed: of the random start of low-rank sketches.
        param_groups: groups of the model's parameters with hyperparameters of their own, as torch's optimizers take
            them: ``[{"params": […], "lr": 0.01}, …]``. They must hold all that trains, and a layer's weight and bias
            together.
        process_group: the ranks that train one model together (`core.distributed`). None: the default group where
            `torch.distributed` is initialized. Give a group of one rank to keep a process alone.
        compiled: whether `torch.compile` makes graphs of the model: steps with statistics run eagerly then, and all
            layers take theirs in the same steps (`core.compiling`). None: whether `model` is compiled already.
        max_skipped: skipped steps in a row, ≥ 1, that are an error (`core.safety`); also batches of statistics.

    Raises:
        ReconstructionError: the local Fisher layers will not fit into memory (`sngd_tune.core.memory`), or no layer
            of the model can get a local Fisher layer.
        SettingsError: a hyperparameter out of range, or a pattern that matches nothing.

    The first ``settings.warmup_batches`` calls of `step` only collect statistics and leave the parameters alone.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> optimizer = SNGD(model)
    >>> [entry.treatment for entry in optimizer.account]
    ['local Fisher', 'local Fisher', 'local Fisher', 'local Fisher']
    """

    #: `torch.amp.GradScaler` leaves unscaling and skipping to `step`, for the statistics have to know of both.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        model: nn.Module,
        settings: SettingsLike | None = None,
        *,
        lr: float | None = None,
        base: str | None = None,
        momentum: float | None = None,
        nesterov: bool | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float = 0.0,
        seed: int = 0,
        max_skipped: int = MAX_SKIPPED,
        param_groups: Sequence[Mapping[str, Any]] | None = None,
        process_group: Any = None,
        compiled: bool | None = None,
    ):
        chosen = as_settings(settings)
        compiled = is_compiled(model) if compiled is None else compiled
        model = unwrapped(model)
        own = {"momentum": momentum, "nesterov": nesterov, "betas": betas, "eps": eps}
        check_hyperparameters({name: value for name, value in own.items() if value is not None})
        self._base, used = choose_base(base, own)
        defaults = {"lr": self._base.default_lr if lr is None else lr, "weight_decay": weight_decay, **used}
        check_hyperparameters({**defaults, "seed": seed, "max_skipped": max_skipped})
        if base is None and defaults["lr"] > _LARGEST_USUAL * self._base.default_lr:
            warnings.warn(
                f"lr={lr}: large for base={self._base.name!r}, which is used as none is named and usually takes about"
                f" {self._base.default_lr:g}; name the base, or try base='sgd'",
                stacklevel=2,
            )
        self.account: list[Entry] = account(model, chosen)
        found = matches(model, chosen, together=compiled)
        check_memory(found, self._base.name)
        self.layers: dict[str, LocalFisher] = {m.name: make_local_fisher(m, seed + i) for i, m in enumerate(found)}
        for layer in self.layers.values():
            layer.collector.max_skipped = max_skipped
        self._max_skipped = max_skipped
        self._adaptation = Adaptation(list(self.layers.values()))
        self.ranks = Ranks(process_group)
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self._found = found
        self._connect()
        self._names.update((p, m.name or "model") for m in found for p in m.parameters)
        # Schedulers look here for what there is to cycle: betas that SGD has not would be cycled instead of momentum.
        super().__init__(cover(model, param_groups), defaults)
        check_layers_whole(found, self.param_groups)

    def _connect(self) -> None:
        """What follows from layers and model, and is made anew in a copy."""
        self._trained: list[Trained] = []
        self._places: dict[Tensor, tuple[LocalFisher | None, torch.dtype | None, torch.device | None]] = {}
        self._observers = Observers(self._found, self.layers)

    def _list_trained(self) -> None:
        """See what the parameter groups hold now."""
        self._trained = trained_by(self.param_groups, self._found, self.layers, self._names)
        self._places = {p: (trained.fisher, None, None) for trained in self._trained for p in trained.parameters}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train more parameters, with the base optimizer alone: of another model, or once frozen ones.

        Raises:
            ValueError: one of them is in a group already.
            SettingsError: a hyperparameter out of range.
        """
        check_hyperparameters({**_PLAIN_VALUES, **self.defaults, **param_group})
        super().add_param_group(param_group)
        number, group = len(self.param_groups) - 1, self.param_groups[-1]
        given = group.get("param_names", [f"param_groups[{number}][{i}]" for i in range(len(group["params"]))])
        for parameter, name in zip(group["params"], given, strict=True):
            if parameter not in self._names:
                self._names[parameter] = name
                self.account.append(Entry(name, "plain", "not a parameter of the model"))
        self._trained = []

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.compiler.disable
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One natural gradient step, or one statistics-only batch during the warm-up.

        A step with a gradient that is not finite is skipped whole, and counted: see `core.safety`.

        Args:
            closure: evaluates the model again and returns the loss. Under ``damping_policy="levenberg_marquardt"``
                it is required, and evaluated once more after every fifth step; the gradients are the last one's then.

        Raises:
            NonFiniteError: `max_skipped` steps in a row had to be skipped.
            RootError: the first root of a layer fails.
            SettingsError: the damping policy needs a closure.
        """
        self._adaptation.require(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with outside_autocast():
            self._step(loss, closure)
        return loss

    def _step(self, loss: float | None, closure: Callable[[], float] | None) -> None:
        if not unscaled(self, self.layers.values(), self._length_depends_on):
            return
        self._follow_parameters()
        moving = [(each, gradients) for each in self._trained if (gradients := each.gradients) is not None]
        norms = self._finite_norms(moving)
        if norms is None:
            return
        if not self._advance():
            model = self._update(moving, norms)
            if model is not None and loss is not None and closure is not None:
                self._adaptation.adapt(model, self._joint(_number(loss)), lambda: self._joint(self._unseen(closure)))
        self._observers.follow_schedule()

    @property
    def needs_closure(self) -> bool:
        """Whether `step` has to be given one: a layer's damping policy goes by the loss after a step."""
        return self._adaptation.active

    @property
    def skipped_steps(self) -> int:
        """Steps that were left out, as a gradient held NaN or infinity."""
        return next(iter(self.layers.values())).skipped_steps

    def diagnostics(self) -> Diagnostics:
        """How each layer's Fisher matrix, root and damping stand. Costs a decomposition of each ``G``."""
        return Diagnostics(
            layers=tuple(map(diagnose, self.layers.values())),
            skipped_steps=self.skipped_steps,
            reduction=self._adaptation.reduction,
        )

    def observe_outputs(self, outputs: Tensor, likelihood: str | Likelihood) -> None:
        """Show the model's outputs to layers with ``fisher="sampled"`` or ``"exact"``, before ``loss.backward()``.

        Next to free in steps that take no statistics. What `outputs` and `likelihood` may be, what it costs and what it
        refuses: `sngd_tune.observe_outputs`, which is the same for the explicit form.
        """
        observe(self.layers.values(), outputs, likelihood, self.ranks)

    def detach(self) -> None:
        """Stop observing the model. The optimizer can still step, with the statistics it has."""
        self._observers.close()

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
        self._list_trained()
        self._keep_precision(state_dict)
        for name, tensors in fisher.items():
            try:
                self.layers[name].load_state_dict(tensors)
            except RuntimeError as error:
                raise ReconstructionError(f"{name}: saved with other settings or of another shape; {error}") from error
        self._observers.follow_schedule()

    def _keep_precision(self, saved: dict[str, Any]) -> None:
        """Torch casts state to the precision of its parameter; that of a layer in bfloat16 is kept in float32."""
        numbers = (number for group in saved["param_groups"] for number in group["params"])
        for number, parameter in zip(numbers, self._parameters(), strict=True):
            layer = self._places[parameter][0]
            if layer is not None:
                exact = {k: v for k, v in saved["state"].get(number, {}).items() if isinstance(v, Tensor)}
                self.state[parameter].update(
                    {k: v.to(parameter.device, layer.dtype, copy=True) for k, v in exact.items()}
                )

    def __getstate__(self) -> dict[str, Any]:
        """All but what refers to hooks and is made anew; a scheduler keeps its wrapped `step` in the instance."""
        made = {"step", "_trained", "_places", "_observers"}
        return {k: v for k, v in self.__dict__.items() if k not in made and not k.startswith("_optimizer_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Observe the model that came along with the copy."""
        super().__setstate__(state)
        self._connect()

    def _finite_norms(self, moving: Sequence[tuple[Trained, Parts]]) -> list[float] | None:
        """The norm of each gradient, in order; None where the step has to be skipped."""
        gradients = [gradient for _, parts in moving for gradient in parts]

        def names() -> list[str]:
            return [each.name for each, parts in moving for _ in parts]

        return finite_norms(gradients, names, list(self.layers.values()), self._max_skipped, self.ranks)

    def _advance(self) -> bool:
        """Close the step's statistics in every layer; True while warming up."""
        layers = [(each.parameters[0], each.fisher) for each in self._trained if each.fisher is not None]
        advance = advance_all([fisher for _, fisher in layers], self.ranks)
        for i, before in advance.replaced.items():
            weight, fisher = layers[i]
            self._base.rebase(self.state[weight], before, fisher.root)
        return advance.warming

    def _length_depends_on(self, layer: LocalFisher) -> bool:
        """Whether a ``G`` that is larger by a factor makes the layer's steps shorter."""
        if self._base.scales_with_gradients:
            return layer.settings.step_bound != "graft"
        return layer.settings.root_scale == "natural"  # Adam knows no scale of gradients, but R is shorter

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def _follow_parameters(self) -> None:
        """Statistics, roots and the base's state go where the parameters have gone: `.double()`, `.to(device)`."""
        if not self._trained:
            self._list_trained()
        moved = [p for p, (_, dtype, device) in self._places.items() if p.dtype is not dtype or p.device != device]
        for parameter in moved:
            fisher = self._places[parameter][0]
            self._places[parameter] = fisher, parameter.dtype, parameter.device
            if fisher is not None:
                fisher.follow(parameter)
            dtype = parameter.dtype if fisher is None else fisher.dtype
            state = self.state.get(parameter, {})
            state.update({k: v.to(parameter.device, dtype) for k, v in state.items() if isinstance(v, Tensor)})

    def _update(self, moving: Sequence[tuple[Trained, Parts]], norms: Sequence[float]) -> QuadraticModel | None:
        """Move all parameters; what was predicted of it, where that is to be compared."""
        groups: list[list[Update]] = [[] for _ in self.param_groups]
        place = 0
        for each, gradients in moving:
            groups[each.group].append(each.update(gradients, norms[place : place + len(gradients)]))
            place += len(gradients)
        pairs = list(zip(self.param_groups, groups, strict=True))
        self._base.bound([(update, group["lr"]) for group, updates in pairs for update in updates])
        model = self._adaptation.model([update for updates in groups for update in updates])
        for group, updates in pairs:
            for portion in portions(updates):
                self._move(group, portion)
        return model

    def _joint(self, loss: float) -> float:
        """The loss of the joint batch, by which all ranks go."""
        return self.ranks.mean(loss, next(iter(self.layers.values())).damping.device)

    @torch.enable_grad()
    def _unseen(self, closure: Callable[[], float]) -> float:
        """The loss once more; what the model sees meanwhile enters no statistics."""
        self._observers.pause()  # `step` lets them follow the schedule again
        return _number(closure())

    def _move(self, group: dict[str, Any], updates: list[Update]) -> None:
        directions = self._base.directions(updates, self.state, group)
        parameters = [parameter for update in updates for parameter in update.parameters]
        if not all(parameter.requires_grad for parameter in parameters):  # part of a layer was frozen meanwhile
            moving = [(p, d) for p, d in zip(parameters, directions, strict=True) if p.requires_grad]
            parameters, directions = [p for p, _ in moving], [d for _, d in moving]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, _like(directions, parameters), alpha=-group["lr"])


#: Times the base's own learning rate, from where one that was meant for another base is suspected.
_LARGEST_USUAL = 30

#: Values that break no rule, for what a group does not have.
_PLAIN_VALUES = {"momentum": 0.0, "nesterov": False, "betas": (0.9, 0.999), "eps": 1e-8, "seed": 0, "max_skipped": 1}


def _number(loss: float | Tensor) -> float:
    return float(loss.detach() if isinstance(loss, Tensor) else loss)


def _like(directions: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """Directions in the precision of their parameters."""
    return [d if d.dtype == p.dtype else d.to(p.dtype) for d, p in zip(directions, parameters, strict=True)]

"""Muon for the hidden matrices of a model and AdamW for everything else, as one optimizer."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C, DEFAULT_NS_STEPS
from torch.optim._muon import EPS as MUON_EPS
from torch.optim._muon import muon as muon_step
from torch.optim.adamw import adamw as adamw_step

from sngd_tune.records.arguments import arguments
from sngd_tune.records.trial import OptimizerConfig

__all__ = ["MuonAdamW", "hidden_matrices", "muon"]

_ADAMW_EPS = 1e-8


def muon(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """`MuonAdamW` with a trial's settings."""
    return MuonAdamW(model, **arguments(config, "muon"))


class MuonAdamW(torch.optim.Optimizer):
    """The steps of `torch.optim.Muon` on hidden matrices and of `torch.optim.AdamW` on the rest.

    Muon (Jordan et al. 2024) replaces the momentum of a matrix by its nearest semi-orthogonal matrix, by five
    Newton-Schulz iterations in bfloat16; momentum is Nesterov's. Its step is scaled by ``0.2 √max(out, in)`` (Liu et
    al. 2025), so that it has the size of AdamW's and one `lr` and `weight_decay` serve both.

    Args:
        model: see `hidden_matrices` for what goes to Muon; a convolution's weight is the matrix
            ``[out, in · kernel]`` there.
        lr: learning rate, > 0, of both.
        momentum: of Muon, in [0, 1).
        betas: of AdamW, each in [0, 1).
        weight_decay: decoupled, ≥ 0, of both.

    A parameter group for each, ``"lr"`` and ``"weight_decay"`` in both.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        hidden = hidden_matrices(model)
        chosen = {id(parameter) for parameter in hidden}
        others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": hidden, "momentum": momentum},
            {"params": others, "betas": tuple(betas)},
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._muon if "momentum" in group else self._adamw)(moving, group)
        return loss

    def _muon(self, moving: Sequence[Tensor], group: dict[str, Any]) -> None:
        for parameter in moving:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        muon_step(
            [_matrix(parameter) for parameter in moving],
            [_gradient(parameter).flatten(1) for parameter in moving],
            [_matrix(self.state[parameter]["momentum_buffer"]) for parameter in moving],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=True,
            ns_coefficients=(DEFAULT_A, DEFAULT_B, DEFAULT_C),
            ns_steps=DEFAULT_NS_STEPS,
            eps=MUON_EPS,
            adjust_lr_fn="match_rms_adamw",
            has_complex=False,
        )

    def _adamw(self, moving: Sequence[Tensor], group: dict[str, Any]) -> None:
        for parameter in moving:
            if not self.state[parameter]:
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update(step=torch.zeros(()), **averages)
        states = [self.state[parameter] for parameter in moving]
        adamw_step(
            list(moving),
            [_gradient(parameter) for parameter in moving],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=_ADAMW_EPS,
            maximize=False,
        )


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights that Muon trains: of two dimensions and more, neither in an embedding nor in the output head.

    The head is the last module that has a weight of two dimensions or more of its own.
    """
    owners = [module for module in model.modules() if any(p.ndim >= 2 for p in module.parameters(recurse=False))]
    outside = {id(p) for m in owners if m is owners[-1] or isinstance(m, nn.Embedding) for p in m.parameters(False)}
    return [p for p in model.parameters() if p.ndim >= 2 and id(p) not in outside]


def _matrix(tensor: Tensor) -> Tensor:
    """A view as ``[out, rest]``: what is written to it is written to the tensor."""
    return tensor.view(len(tensor), -1)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad

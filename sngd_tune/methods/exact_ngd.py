"""Natural gradient descent with the exact Fisher matrix of each batch: the yardstick for what approximates it.

With ``J_i`` the derivative of the outputs of term ``i`` by all parameters and ``H_i`` the Fisher matrix of these
outputs, the Fisher matrix of a batch of ``n`` terms is ``F = 1/n Σ J_iᵀ H_i J_i`` (Martens 2020). With the rows of
``A: [n C, P]`` made of a square root of ``H``, ``F = AᵀA / n``, and by Woodbury's identity

    ``(F + λI)⁻¹ g = (g − Aᵀ (n λ I + A Aᵀ)⁻¹ A g) / λ``,

which takes a system of ``n C`` equations where ``F`` itself has ``P × P`` entries (Ren and Goldfarb 2019).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor, nn

from sngd_tune.core.likelihoods import Likelihood, make_likelihood
from sngd_tune.errors import ConfigurationError, NonFiniteError, SettingsError
from sngd_tune.records.arguments import arguments
from sngd_tune.records.trial import OptimizerConfig

__all__ = ["MOST_BYTES", "ExactNGD", "exact_ngd", "predicted_bytes"]

#: A step may take, at most.
MOST_BYTES = 1 << 30

_AT_ONCE = 64  # rows a batched backward pass takes: activations of a whole batch are there for each of them


def exact_ngd(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """`ExactNGD` with a trial's settings."""
    return ExactNGD(model, **arguments(config, "exact_ngd"))


def predicted_bytes(rows: int, parameters: int, itemsize: int = 4) -> int:
    """Bytes of ``A``, of ``A Aᵀ`` and of its root, which has the precision of float64.

    Args:
        rows: terms of the batch times outputs of each, ``n C``.
        parameters: numbers that train, ``P``.
        itemsize: bytes of one of them.
    """
    return rows * parameters * itemsize + 2 * 8 * rows**2


class ExactNGD(torch.optim.Optimizer):
    """``p ← (1 − lr · weight_decay) p − lr · v`` with ``v ← momentum · v + (F + λI)⁻¹ g``, for the smallest networks.

    Each step needs `observe_outputs` between its forward pass and ``loss.backward()``. It takes ``n C`` backward passes
    (batched) and a Cholesky root of ``n C`` columns, for ``n`` terms of ``C`` outputs.

    Args:
        model: any that autograd can differentiate in batches; one whose examples do not act on each other.
        lr: η > 0; 1 is the full step of a quadratic model.
        momentum: heavy-ball, in [0, 1).
        relative_damping: ρ > 0 in ``λ = ρ · mean(diag F)``.
        weight_decay: decoupled, ≥ 0.

    Raises:
        SettingsError: a value out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.1,
        momentum: float = 0.0,
        relative_damping: float = 1.0,
        weight_decay: float = 0.0,
    ):
        if not lr > 0:
            raise SettingsError(f"lr={lr!r}: must be > 0; try 0.1")
        if not 0 <= momentum < 1:
            raise SettingsError(f"momentum={momentum!r}: must be in [0, 1); try 0.9")
        if not relative_damping > 0:
            raise SettingsError(f"relative_damping={relative_damping!r}: must be > 0; try 1.0")
        if not weight_decay >= 0:
            raise SettingsError(f"weight_decay={weight_decay!r}: must be ≥ 0; try 0.0")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([p for p in model.parameters() if p.requires_grad], defaults)
        self._relative_damping = relative_damping
        self._seen: _Rows | None = None

    def observe_outputs(self, outputs: Tensor, likelihood: str | Likelihood) -> None:
        """Take the rows ``A`` from the outputs of this step, ``[*terms, C]`` with their graph behind them.

        Args:
            outputs: as the loss has them, which is taken to be a mean over `terms`.
            likelihood: ``"softmax"``, ``"gaussian"`` or ``"bernoulli"``, or a `Likelihood`: the one of the loss.

        Raises:
            ConfigurationError: the step would take more than `MOST_BYTES`.
            SettingsError: an unknown likelihood, or outputs without dimensions or graph.
        """
        if outputs.dim() < 2 or not outputs.requires_grad:
            raise SettingsError(
                f"outputs of shape {tuple(outputs.shape)}: must be [*terms, C] with their graph behind them;"
                " observe them where the loss is computed"
            )
        parameters = self._parameters()
        self._check_size(outputs, parameters)
        self._seen = _Rows.of(outputs, parameters, make_likelihood(likelihood))

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step with the outputs seen last; parameters without a gradient count as flat.

        Raises:
            SettingsError: no outputs have been observed since the last step.
            NonFiniteError: outputs or gradients hold NaN or infinity.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._seen is None:
            raise SettingsError("step: needs the outputs of its batch; call observe_outputs before loss.backward()")
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters()]
        natural = iter(self._seen.natural_gradient(gradients, self._relative_damping))
        self._seen = None
        for group in self.param_groups:
            for parameter in group["params"]:
                self._move(parameter, next(natural), group)
        return loss

    def _move(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        if group["momentum"] > 0:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            direction = state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _check_size(self, outputs: Tensor, parameters: list[Tensor]) -> None:
        count = sum(parameter.numel() for parameter in parameters)
        need = predicted_bytes(outputs.numel(), count, parameters[0].element_size())
        if need > MOST_BYTES:
            raise ConfigurationError(
                f"optimizer='exact_ngd': {outputs.numel():,} outputs of a batch by {count:,} parameters take"
                f" {need / 2**30:.3g} GiB, and it must be at most {MOST_BYTES / 2**30:.3g}; try a smaller batch_size,"
                " or optimizer: sngd"
            )


@dataclass(frozen=True)
class _Rows:
    """``A`` in one block for each parameter, ``[n C, size]``, and the number ``n`` of terms.

    Blocks have the parameters' precision; sums of their products are taken in float64, which small dampings need: the
    two terms of Woodbury's identity nearly cancel.
    """

    blocks: tuple[Tensor, ...]
    terms: int

    @classmethod
    def of(cls, outputs: Tensor, parameters: list[Tensor], likelihood: Likelihood) -> "_Rows":
        chunks: list[tuple[Tensor, ...]] = []
        for vectors in _vectors(outputs, likelihood):
            found = torch.autograd.grad(
                outputs, parameters, vectors, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
            rows = (
                torch.zeros(len(vectors), p.numel(), dtype=p.dtype, device=p.device) if row is None else row.flatten(1)
                for p, row in zip(parameters, found, strict=True)
            )
            chunks.append(tuple(rows))
        return cls(tuple(map(torch.cat, zip(*chunks, strict=True))), outputs.numel() // outputs.shape[-1])

    def natural_gradient(self, gradients: list[Tensor], relative_damping: float) -> list[Tensor]:
        """``(F + λI)⁻¹ g``, in the shapes of `gradients`."""
        flat = [gradient.flatten().double() for gradient in gradients]
        products = self._zeros(len(self.blocks[0]))
        along = self._zeros()
        for block, gradient in zip(self.blocks, flat, strict=True):
            rows = block.double()
            products += rows @ rows.T
            along += rows @ gradient
        lam = relative_damping * float(products.trace()) / (self.terms * sum(map(len, flat)))
        products.diagonal().add_(self.terms * lam)
        factor, failed = torch.linalg.cholesky_ex(products)
        if failed or not 0 < lam < math.inf:
            raise NonFiniteError(
                f"λ={lam:g}: must be > 0 and finite; the derivatives of the batch's outputs are not finite, or all 0:"
                " try a smaller lr, or a larger relative_damping"
            )
        weights = torch.cholesky_solve(along[:, None], factor)[:, 0]
        return [
            ((gradient - block.double().T @ weights) / lam).to(like).view_as(like)
            for block, gradient, like in zip(self.blocks, flat, gradients, strict=True)
        ]

    def _zeros(self, *columns: int) -> Tensor:
        return torch.zeros(len(self.blocks[0]), *columns, dtype=torch.float64, device=self.blocks[0].device)


def _vectors(outputs: Tensor, likelihood: Likelihood) -> Iterator[Tensor]:
    """The columns of the square root of ``H``, of one term each, in chunks ``[rows, *terms, C]``."""
    values = outputs.detach()
    width = values.shape[-1]
    for column in likelihood.columns(values.reshape(-1, width)):
        for terms in torch.arange(len(column), device=column.device).split(_AT_ONCE):
            chunk = torch.zeros(len(terms), *column.shape, dtype=column.dtype, device=column.device)
            chunk[torch.arange(len(terms), device=column.device), terms] = column[terms]
            yield chunk.view(len(terms), *outputs.shape)

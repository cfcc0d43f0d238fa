"""Slow, obvious references in float64: what the fast paths must agree with. For tests and for reading.

`DenseSngd` is the method as the papers write it, one matrix at a time, with ``(G + λI)⁻¹`` formed and the whole layer's
Kronecker system solved; nothing in it is shared with the fast paths but the settings and the schedule.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sngd_tune.core.schedule import refresh_due, statistics_due
from sngd_tune.settings import FisherSettings

__all__ = ["DenseSngd", "damping", "fisher", "inverse", "low_rank", "natural_gradient", "restrict", "symmetric_root"]


def fisher(a: Tensor) -> Tensor:
    """``E[a aᵀ]`` over the rows of ``a: [n, d]``; ``[d, d]``."""
    return torch.stack([torch.outer(row, row) for row in a.double()]).mean(0)


def restrict(G: Tensor, settings: FisherSettings) -> Tensor:
    """``G`` with the entries zeroed that the granularity does not keep."""
    d = len(G)
    if settings.granularity == "diagonal":
        return torch.diag(G.diagonal())
    if settings.block is None:
        return G
    count = -(-d // int(settings.block))
    block = torch.arange(d) // -(-d // count)
    return torch.where(block[:, None] == block[None, :], G, torch.zeros_like(G))


def damping(G: Tensor, settings: FisherSettings) -> float:
    """``λ = relative · mean(diag G) + absolute``."""
    return settings.relative_damping * float(G.diagonal().mean()) + settings.absolute_damping


def inverse(G: Tensor, lam: float) -> Tensor:
    """``(G + λI)⁻¹``."""
    return torch.linalg.inv(G.double() + lam * torch.eye(len(G), dtype=torch.float64))


def symmetric_root(G: Tensor, lam: float) -> Tensor:
    """``(G + λI)^-½``, symmetric."""
    values, V = torch.linalg.eigh(G.double())
    return V @ torch.diag((values + lam) ** -0.5) @ V.T


def low_rank(G: Tensor, rank: int) -> Tensor:
    """The leading `rank` eigenpairs of ``G``, the rest replaced by its mean."""
    values, V = torch.linalg.eigh(G.double())
    rest = len(G) - rank
    if rest > 0:
        values = torch.cat((values[:rest].mean().expand(rest), values[rest:]))
    return V @ torch.diag(values) @ V.T


def natural_gradient(gradient: Tensor, G: Tensor, lam: float) -> Tensor:
    """Solve ``(I ⊗ (G + λI)) vec(x) = vec(∇_W)``, the layer's whole damped Fisher system; ``[d_out, d]``."""
    d_out, d = gradient.shape
    system = torch.kron(torch.eye(d_out, dtype=torch.float64), G.double() + lam * torch.eye(d, dtype=torch.float64))
    return torch.linalg.solve(system, gradient.double().flatten()).view(d_out, d)


class DenseSngd:
    """Natural gradient descent on the linear layers of a float64 `nn.Sequential`, all parameters of which they own.

    Args:
        model: trained in place.
        settings: with any granularity; low rank only where the rank covers every layer. Step bound ``"none"``.
        lr: η.
        base: ``"sgd"`` or ``"adamw"``; the latter works in the coordinates of the symmetric root.
        momentum, betas, weight_decay: of the base; the decay is decoupled.
    """

    def __init__(
        self,
        model: nn.Sequential,
        settings: FisherSettings,
        *,
        lr: float,
        base: str = "sgd",
        momentum: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        self.model, self.settings = model, settings
        self.lr, self.momentum, self.betas, self.weight_decay = lr, momentum, betas, weight_decay
        self._descend: Callable[[int, Tensor], Tensor] = self._sgd if base == "sgd" else self._adamw
        self._layers = [module for module in model if isinstance(module, nn.Linear)]
        self._moments: list[list[Tensor]] = [[] for _ in self._layers]  # batches' E[a aᵀ], in order
        self._kept: list[tuple[Tensor, float]] = [(torch.empty(0), 0.0)] * len(
            self._layers
        )  # G and λ of the last refresh
        self._state: list[dict[str, Tensor]] = [{} for _ in self._layers]
        self._step = -settings.warmup_batches
        self._updates = 0

    def step(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
        """One step on ``loss(model(x))``."""
        inputs = self._forward_inputs(x)
        gradients = self._gradients(loss(self.model(x)))
        for i, a in enumerate(inputs):
            if statistics_due(self._step, self.settings):
                self._moments[i].append(fisher(a))
            if refresh_due(self._step, self.settings):
                self._refresh(i)
        if self._step >= 0:
            self._updates += 1
            for i, gradient in enumerate(gradients):
                self._move(i, self._descend(i, gradient))
        self._step += 1

    def _forward_inputs(self, x: Tensor) -> list[Tensor]:
        inputs = []
        with torch.no_grad():
            for module in self.model:
                if isinstance(module, nn.Linear):
                    ones = torch.ones(len(x), 1, dtype=x.dtype)
                    inputs.append(torch.cat((x, ones), 1) if module.bias is not None else x)
                x = module(x)
        return inputs

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        self.model.zero_grad()
        loss.backward()
        return [
            torch.cat([p.grad.view(len(p), -1) for p in layer.parameters() if p.grad is not None], 1)
            for layer in self._layers
        ]

    def _refresh(self, i: int) -> None:
        """The bias-corrected moving average, written out as the weighted mean that it is."""
        moments, decay = self._moments[i], self.settings.decay
        weights = [(1 - decay) * decay ** (len(moments) - 1 - t) for t in range(len(moments))]
        G = sum((w * m for w, m in zip(weights, moments, strict=True)), torch.zeros_like(moments[0])) / sum(weights)
        old, self._kept[i] = self._kept[i], (restrict(G, self.settings), damping(G, self.settings))
        if "first" in self._state[i]:
            change = torch.linalg.inv(symmetric_root(*old)) @ symmetric_root(*self._kept[i])
            self._state[i]["first"] = self._state[i]["first"] @ change

    def _sgd(self, i: int, gradient: Tensor) -> Tensor:
        natural = natural_gradient(gradient, *self._kept[i])
        velocity = self.momentum * self._state[i].get("velocity", torch.zeros_like(natural)) + natural
        self._state[i]["velocity"] = velocity
        return velocity

    def _adamw(self, i: int, gradient: Tensor) -> Tensor:
        root, (beta1, beta2), state = symmetric_root(*self._kept[i]), self.betas, self._state[i]
        g = gradient @ root
        state["first"] = beta1 * state.get("first", torch.zeros_like(g)) + (1 - beta1) * g
        state["second"] = beta2 * state.get("second", torch.zeros_like(g)) + (1 - beta2) * g**2
        first, second = state["first"] / (1 - beta1**self._updates), state["second"] / (1 - beta2**self._updates)
        return (first / (second.sqrt() + 1e-8)) @ root

    @torch.no_grad()
    def _move(self, i: int, direction: Tensor) -> None:
        layer = self._layers[i]
        for parameter, part in ((layer.weight, direction[:, : layer.in_features]), (layer.bias, direction[:, -1])):
            if parameter is not None:
                parameter.mul_(1 - self.lr * self.weight_decay).sub_(self.lr * part)

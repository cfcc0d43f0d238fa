"""Slow, obvious references in float64: what the fast paths must agree with. For tests and for reading.

`DenseSngd` is the method as the papers write it, one matrix at a time, with the whole layer's damped Fisher matrix
formed and solved; nothing in it is shared with the fast paths but the settings and the schedule.

Rows of output gradients are ``g: [k, n, d_out]`` here: those of each of `n` rows for each of `k` targets, whose
contributions add up (one target for the empirical and the sampled Fisher matrix, for the exact one a column of a
square root of the outputs').
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sngd_tune.core.schedule import refresh_due, staggered, statistics_due
from sngd_tune.settings import FisherSettings

__all__ = [
    "DenseSngd",
    "damped_matrix",
    "damping",
    "fisher",
    "inverse",
    "layer_fisher",
    "low_rank",
    "moments",
    "natural_gradient",
    "network_fisher",
    "output_fisher",
    "restrict",
    "solve",
    "symmetric_root",
    "unit_fisher",
]


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


def unit_fisher(a: Tensor, g: Tensor) -> Tensor:
    """``E[g_j² a aᵀ]`` for each output ``j``; ``[d_out, d, d]``."""
    units = [
        sum((torch.outer(row, row) * square for row, square in zip(a, squares, strict=True)), torch.zeros(()))
        for squares in g.square().sum(0).T
    ]
    return torch.stack([unit / len(a) for unit in units])


def layer_fisher(a: Tensor, g: Tensor) -> Tensor:
    """``E[(g ⊗ a)(g ⊗ a)ᵀ]``; ``[d_out·d, d_out·d]``, in the order of ``W.flatten()``."""
    rows = [torch.kron(g_row, a_row) for target in g for g_row, a_row in zip(target, a, strict=True)]
    return torch.stack([torch.outer(row, row) for row in rows]).sum(0) / len(a)


def moments(a: Tensor, g: Tensor, settings: FisherSettings) -> tuple[Tensor, ...]:
    """What the granularity averages over batches: expectations over the rows of one batch."""
    if settings.granularity == "unit":
        return (unit_fisher(a, g),)
    if settings.granularity == "kron":
        return fisher(a), len(g) * fisher(g.flatten(0, 1))
    if settings.granularity == "layer":
        return (layer_fisher(a, g),)
    return (restrict(fisher(a), settings),)


def damped_matrix(averages: tuple[Tensor, ...], settings: FisherSettings, d_out: int) -> Tensor:
    """The layer's damped Fisher matrix in full, ``[d_out·d, d_out·d]``, in the order of ``W.flatten()``."""
    if settings.granularity == "unit":
        own = averages[0].diagonal(dim1=-2, dim2=-1).mean(-1)
        floor = float(own.mean()) * 1e-3
        lams = [settings.relative_damping * max(float(v), floor) + settings.absolute_damping for v in own]
        return torch.block_diag(*(_plus(G, lam) for G, lam in zip(averages[0], lams, strict=True)))
    if settings.granularity == "kron":
        A, B = averages
        scale_a, scale_b = float(A.diagonal().mean()), float(B.diagonal().mean())
        root = (settings.relative_damping * scale_a * scale_b + settings.absolute_damping) ** 0.5
        pi = (scale_a / scale_b) ** 0.5
        return torch.kron(_plus(B, root / pi), _plus(A, root * pi))
    G = _plus(averages[0], damping(averages[0], settings))
    return G if settings.granularity == "layer" else torch.kron(torch.eye(d_out, dtype=torch.float64), G)


def _plus(G: Tensor, lam: float) -> Tensor:
    return G + lam * torch.eye(len(G), dtype=torch.float64)


def solve(matrix: Tensor, gradient: Tensor) -> Tensor:
    """``x`` with ``matrix · vec(x) = vec(gradient)``, row-major, of the gradient's shape."""
    return torch.linalg.solve(matrix, gradient.flatten()).view(gradient.shape)


def output_fisher(outputs: Tensor, likelihood: str) -> Tensor:
    """The Fisher matrix of one example's outputs ``f: [C]``, ``[C, C]``: the Hessian of the log-partition function."""
    if likelihood == "softmax":
        p = outputs.softmax(0)
        return torch.diag(p) - torch.outer(p, p)
    if likelihood == "bernoulli":
        return torch.diag(outputs.sigmoid() * (1 - outputs.sigmoid()))
    return torch.eye(len(outputs), dtype=outputs.dtype)


def network_fisher(model: nn.Module, x: Tensor, likelihood: str) -> Tensor:
    """The exact Fisher matrix of all parameters, ``E[Jᵀ F J]``, ``[P, P]``, in the order of `parameters`.

    ``J`` is the Jacobian of one example's outputs, ``F`` their Fisher matrix. With `solve` it gives the exact natural
    gradient of the network, the ``"network"`` end of the granularities.
    """
    names, parameters = zip(*((name, p.detach()) for name, p in model.named_parameters()), strict=True)
    total = torch.zeros((), dtype=torch.float64)
    for example in x:

        def outputs(*values: Tensor, example: Tensor = example) -> Tensor:
            return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (example[None],))[0]

        jacobians = torch.autograd.functional.jacobian(outputs, parameters)
        J = torch.cat([jacobian.flatten(1) for jacobian in jacobians], 1)
        total = total + J.T @ output_fisher(outputs(*parameters), likelihood) @ J
    return total / len(x)


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
        self._moments: list[list[tuple[Tensor, ...]]] = [[] for _ in self._layers]  # of the batches, in order
        self._kept = [torch.empty(0)] * len(self._layers)  # the damped Fisher matrices of the last refresh
        self._state: list[dict[str, Tensor]] = [{} for _ in self._layers]
        self._offsets = staggered([(layer, settings) for layer in self._layers])
        self._step = -settings.warmup_batches
        self._updates = 0

    def step(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
        """One step on ``loss(model(x))``."""
        inputs, outputs = self._forward(x)
        gradients, output_gradients = self._gradients(loss(self.model(x)), loss(outputs[-1]), outputs)
        for i, a in enumerate(inputs):
            if statistics_due(self._step, self.settings, self._offsets[i]):
                self._moments[i].append(moments(a, output_gradients[i], self.settings))
            if refresh_due(self._step, self.settings, self._offsets[i]):
                self._refresh(i)
        if self._step >= 0:
            self._updates += 1
            for i, gradient in enumerate(gradients):
                self._move(i, self._descend(i, gradient))
        self._step += 1

    def _forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs of the linear layers; their outputs and, last, the model's."""
        inputs, outputs = [], []
        for module in self.model:
            if isinstance(module, nn.Linear):
                ones = torch.ones(len(x), 1, dtype=x.dtype)
                inputs.append((torch.cat((x, ones), 1) if module.bias is not None else x).detach())
            x = module(x)
            if isinstance(module, nn.Linear):
                outputs.append(x)
        return inputs, [*outputs, x]

    def _gradients(self, loss: Tensor, again: Tensor, outputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of the weights, ``[d_out, d]``, and of each example's pre-activations, ``[1, n, d_out]``."""
        self.model.zero_grad()
        loss.backward()
        weights = [
            torch.cat([p.grad.view(len(p), -1) for p in layer.parameters() if p.grad is not None], 1)
            for layer in self._layers
        ]
        return weights, [len(g) * g[None] for g in torch.autograd.grad(again, outputs[: len(self._layers)])]

    def _refresh(self, i: int) -> None:
        """The bias-corrected moving average, written out as the weighted mean that it is."""
        decay, batches = self.settings.decay, self._moments[i]
        weights = torch.tensor([decay ** (len(batches) - 1 - t) for t in range(len(batches))], dtype=torch.float64)
        weights /= weights.sum()
        averages = tuple(torch.tensordot(weights, torch.stack(kind), 1) for kind in zip(*batches, strict=True))
        old, self._kept[i] = self._kept[i], damped_matrix(averages, self.settings, self._layers[i].out_features)
        if "first" in self._state[i]:
            first = self._state[i]["first"]
            change = torch.linalg.inv(symmetric_root(old, 0.0)) @ symmetric_root(self._kept[i], 0.0)
            self._state[i]["first"] = (first.flatten() @ change).view(first.shape)

    def _sgd(self, i: int, gradient: Tensor) -> Tensor:
        natural = solve(self._kept[i], gradient)
        velocity = self.momentum * self._state[i].get("velocity", torch.zeros_like(natural)) + natural
        self._state[i]["velocity"] = velocity
        return velocity

    def _adamw(self, i: int, gradient: Tensor) -> Tensor:
        root, (beta1, beta2), state = symmetric_root(self._kept[i], 0.0), self.betas, self._state[i]
        g = (gradient.flatten() @ root).view(gradient.shape)
        state["first"] = beta1 * state.get("first", torch.zeros_like(g)) + (1 - beta1) * g
        state["second"] = beta2 * state.get("second", torch.zeros_like(g)) + (1 - beta2) * g**2
        first, second = state["first"] / (1 - beta1**self._updates), state["second"] / (1 - beta2**self._updates)
        return ((first / (second.sqrt() + 1e-8)).flatten() @ root).view(gradient.shape)

    @torch.no_grad()
    def _move(self, i: int, direction: Tensor) -> None:
        layer = self._layers[i]
        for parameter, part in ((layer.weight, direction[:, : layer.in_features]), (layer.bias, direction[:, -1])):
            if parameter is not None:
                parameter.mul_(1 - self.lr * self.weight_decay).sub_(self.lr * part)

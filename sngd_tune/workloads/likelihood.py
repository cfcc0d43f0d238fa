"""Whether a workload's likelihood is the one of its loss: Fisher matrices over the model's own targets go by it.

For the likelihoods that have a name, the second derivative of the negative logarithm by the outputs is the Fisher
matrix of the outputs, whatever the targets are. So the loss's own second derivative, along one random direction, tells
both a wrong likelihood and a loss that is a multiple of the right one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.workload import Split, Workload

__all__ = ["PRODUCTS", "check_likelihood", "required_likelihood"]

_EXAMPLES = 8  # enough: every one of them must agree
_TOLERANCE = 1e-3  # relative; float32 and two derivatives leave some 1e-6


def _softmax_product(outputs: Tensor, v: Tensor) -> Tensor:
    """``(diag p − p pᵀ) v``."""
    p = outputs.softmax(-1)
    return p * v - p * (p * v).sum(-1, keepdim=True)


def _bernoulli_product(outputs: Tensor, v: Tensor) -> Tensor:
    p = outputs.sigmoid()
    return p * (1 - p) * v


#: The Fisher matrix of the outputs ``[*terms, C]`` times a vector, by likelihood.
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": _softmax_product,
    "gaussian": lambda outputs, v: v,
    "bernoulli": _bernoulli_product,
}


def required_likelihood(workload: Workload) -> str:
    """The workload's likelihood, for a study or a trial that needs it.

    Raises:
        ConfigurationError: it has none, or one of an unknown name.
    """
    if workload.likelihood not in PRODUCTS:
        raise ConfigurationError(
            f"likelihood={workload.likelihood!r} of workload {type(workload).__name__}: must be one of"
            f" {', '.join(PRODUCTS)} for optimizer: exact_ngd and fisher: sampled and exact, which draw from it; set"
            " it in the class to the one of its loss, or keep fisher: empirical"
        )
    return workload.likelihood


def check_likelihood(workload: Workload, data: Split) -> None:
    """See whether the loss is the likelihood's negative logarithm, on a few examples of `data`.

    Raises:
        ConfigurationError: it is not, or the outputs are not ``[*terms, C]``. The message names what would fit.
    """
    name = required_likelihood(workload)
    outputs, v, found = _curvature(workload, data)
    share = _share(found, PRODUCTS[name](outputs, v))
    if share is not None and abs(share - 1) <= _TOLERANCE:
        return
    raise ConfigurationError(
        f"likelihood={name!r} of workload {type(workload).__name__}: its negative logarithm, averaged over all but the"
        f" last dimension of the outputs, must be the loss; {_remedy(name, share, outputs, v, found)},"
        " or keep fisher: empirical"
    )


def _curvature(workload: Workload, data: Split) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of a fresh model, a random direction, and the second derivative of the loss along it, for each term."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = workload.model().eval()
        with torch.no_grad():
            outputs = model(torch.tensor(data.inputs[:_EXAMPLES]))
        if not isinstance(outputs, Tensor) or outputs.dim() < 2:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ConfigurationError(
                f"outputs of workload {type(workload).__name__}: {shape}: must be one tensor [*terms, C] for fisher:"
                " sampled and exact; try outputs.unsqueeze(-1), or keep fisher: empirical"
            )
        outputs.requires_grad_()
        loss = workload.loss(outputs, torch.tensor(data.targets[:_EXAMPLES]))
        v = torch.randn_like(outputs)
    (gradient,) = torch.autograd.grad(loss, outputs, create_graph=True)
    if not gradient.requires_grad:  # a loss without second derivatives, such as the absolute error
        return outputs.detach(), v, torch.zeros_like(v)
    (found,) = torch.autograd.grad(gradient, outputs, v)
    return outputs.detach(), v, found * (outputs.numel() // outputs.shape[-1])


def _share(found: Tensor, expected: Tensor) -> float | None:
    """The factor between the two; None where they are no multiples of each other."""
    factor = float((found * expected).sum() / (expected * expected).sum())
    apart = torch.linalg.vector_norm(found - factor * expected)
    return factor if factor > 0 and apart <= _TOLERANCE * torch.linalg.vector_norm(found) else None


def _remedy(name: str, share: float | None, outputs: Tensor, v: Tensor, found: Tensor) -> str:
    """What to change."""
    if share is not None:
        return f"it is {share:.4g} times that: divide it by {share:.4g}"
    shares = {other: _share(found, product(outputs, v)) for other, product in PRODUCTS.items()}
    other = next((other for other, factor in shares.items() if factor is not None), None)
    return f"it is that of {other!r}: name this one" if other else f"it is that of none of {', '.join(PRODUCTS)}"

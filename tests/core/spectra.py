"""Matrices of known spectra that the tests of roots, operators and sketches share."""

import torch
from torch import Tensor

KINDS = ("geometric", "deficient", "clustered", "one huge", "zero")


def eigenvalues(kind: str, d: int, condition: float) -> Tensor:
    """Descending from 1 (``"zero"``: all 0); `condition` is 1 over the least one that is not 0."""
    if kind == "zero":
        return torch.zeros(d, dtype=torch.float64)
    values = float(condition) ** -torch.linspace(0, 1, d, dtype=torch.float64)
    if kind == "deficient":
        values[(d + 1) // 2 :] = 0
    elif kind == "clustered":
        values = torch.where(torch.arange(d) < (d + 1) // 2, 1, values[-1])
    elif kind == "one huge":
        values[1:] = values[-1].clone()
    return values


def orthogonal(d: int, columns: int | None = None, seed: int = 0, lead: tuple[int, ...] = ()) -> Tensor:
    """Random orthonormal columns in float64, ``[*lead, d, columns]``."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(*lead, d, columns or d, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q


def with_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix in float64 with these eigenvalues, ``[*lead, d]``, in random directions."""
    Q = orthogonal(values.shape[-1], seed=seed, lead=values.shape[:-1])
    G = (Q * values.unsqueeze(-2)) @ Q.mT
    return (G + G.mT) / 2

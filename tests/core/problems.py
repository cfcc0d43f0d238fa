"""Small float64 problems that core and reconstruction tests share."""

import torch
from torch import Tensor, nn

from sngd_tune.settings import FisherSettings

EXAMPLES, INPUTS, OUTPUTS = 32, 7, 3


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Linear layers with and without bias; every parameter belongs to one."""
    torch.manual_seed(seed)
    layers = [nn.Linear(INPUTS, 6), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, OUTPUTS)]
    return nn.Sequential(*layers).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Badly scaled inputs, whose covariance natural gradient has something to correct in."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(0.5, -1, INPUTS, dtype=torch.float64)
    return [
        (
            (torch.randn(EXAMPLES, INPUTS, generator=generator, dtype=torch.float64) * scale).to(dtype),
            torch.randn(EXAMPLES, OUTPUTS, generator=generator, dtype=torch.float64).to(dtype),
        )
        for _ in range(count)
    ]


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, data: list[tuple[Tensor, Tensor]]) -> None:
    """One optimizer step on each batch."""
    for x, y in data:
        optimizer.zero_grad()
        squared_error(model(x), y).backward()
        optimizer.step()


def relative_difference(model: nn.Module, expected: nn.Module) -> float:
    """Largest difference of a parameter, relative to its norm."""
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    return max(float((p.detach() - q.detach()).norm() / q.detach().norm()) for p, q in pairs)


#: Every kind of estimate and root; low rank both covering all inputs (where it is exact) and not.
SETTINGS = {
    "diagonal": {"granularity": "diagonal"},
    "block-cholesky": {"granularity": "block:3", "root": "cholesky"},
    "block-eigh": {"granularity": "block:3", "root": "eigh"},
    "block-denman_beavers": {"granularity": "block:4", "root": "denman_beavers"},
    "input-cholesky": {"granularity": "input", "root": "cholesky"},
    "input-eigh": {"granularity": "input", "root": "eigh"},
    "input-denman_beavers": {"granularity": "input", "root": "denman_beavers"},
    "input-eigenbasis": {"granularity": "input", "root": "eigenbasis"},
    "input-newton_schulz": {"granularity": "input", "root": "newton_schulz"},
    "block-newton_schulz": {"granularity": "block:3", "root": "newton_schulz"},
    "input-nystrom": {"granularity": "input", "root": "nystrom", "rank": 20},
    "input-nystrom-2": {"granularity": "input", "root": "nystrom", "rank": 2},
}
EXACT = [name for name in SETTINGS if name != "input-nystrom-2"]
SYMMETRIC = [name for name in EXACT if not name.endswith(("cholesky", "eigenbasis", "newton_schulz"))]


def settings(name: str, **changes: object) -> FisherSettings:
    values = {"relative_damping": 0.1, "fisher_interval": 6, "statistics_interval": 2, "warmup_batches": 2}
    return FisherSettings(**{**values, **SETTINGS[name], **changes})

"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024), from the package `pytorch_optimizer`."""

import torch
from torch import nn

from sngd_tune.records.arguments import arguments
from sngd_tune.records.extras import check_installed
from sngd_tune.records.trial import OptimizerConfig

__all__ = ["soap"]


def soap(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SOAP on all parameters; its first step sets up the preconditioners and moves nothing.

    Raises:
        MissingDependencyError: `pytorch_optimizer` is not installed.
    """
    check_installed("soap")
    from pytorch_optimizer import SOAP

    optimizer: torch.optim.Optimizer = SOAP(model.parameters(), **arguments(config, "soap"))
    return optimizer

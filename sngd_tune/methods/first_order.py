"""Torch's own first-order methods: baselines, and the bases of SNGD's explicit form."""

import torch
from torch import nn

from sngd_tune.records.arguments import arguments
from sngd_tune.records.trial import OptimizerConfig

__all__ = ["adamw", "nadamw", "sgd"]


def sgd(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD with heavy-ball or Nesterov momentum; weight decay is L2."""
    return torch.optim.SGD(model.parameters(), **arguments(config, "sgd"))


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(model.parameters(), **arguments(config, "adamw"))


def nadamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam with Nesterov momentum (Dozat 2016) and decoupled weight decay, a baseline of AlgoPerf."""
    return torch.optim.NAdam(model.parameters(), **arguments(config, "nadamw"))

"""From a trial's configuration to a model and the optimizer that trains it: every method a study can name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.optimizer import SNGD
from sngd_tune.core.outputs import observe_outputs
from sngd_tune.reconstruction.transform import reconstruct
from sngd_tune.records.trial import OptimizerConfig, TrialConfig

__all__ = ["build", "local_fishers", "output_observer"]


def build(model: nn.Module, trial: TrialConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model to train (rebuilt under the explicit form) and its optimizer."""
    optimizer = trial.optimizer
    if optimizer.method != "sngd":
        return model, _TORCH[optimizer.method](model, optimizer)
    assert trial.fisher is not None
    if optimizer.form == "explicit":
        rebuilt = reconstruct(model, trial.fisher, seed=trial.seed)
        return rebuilt, _TORCH[optimizer.base](rebuilt, optimizer)
    on_sgd = optimizer.base == "sgd"
    return model, SNGD(
        model,
        trial.fisher,
        lr=optimizer.lr,
        base=optimizer.base,
        momentum=optimizer.momentum if on_sgd else None,
        betas=None if on_sgd else (optimizer.beta1, optimizer.beta2),
        weight_decay=optimizer.weight_decay,
        seed=trial.seed,
    )


def local_fishers(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, LocalFisher]:
    """The local Fisher layers of either form, by the name of their layer; empty for the baselines."""
    if isinstance(optimizer, SNGD):
        return optimizer.layers
    return {module.name: module for module in model.modules() if isinstance(module, LocalFisher)}


def output_observer(model: nn.Module, optimizer: torch.optim.Optimizer, likelihood: str) -> Callable[[Tensor], None]:
    """What shows the outputs of a training step to the local Fisher layers, of either form, before `backward`."""
    if isinstance(optimizer, SNGD):
        return lambda outputs: optimizer.observe_outputs(outputs, likelihood)
    return lambda outputs: observe_outputs(model, outputs, likelihood)


def _sgd(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(model.parameters(), lr=config.lr, betas=betas, weight_decay=config.weight_decay)


_TORCH: dict[str, Callable[[nn.Module, OptimizerConfig], torch.optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}

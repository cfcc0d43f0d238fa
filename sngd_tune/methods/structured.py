"""SNGD, in place or on a reconstructed model."""

import torch
from torch import nn

from sngd_tune.core.optimizer import SNGD
from sngd_tune.methods.first_order import adamw, sgd
from sngd_tune.reconstruction.transform import reconstruct
from sngd_tune.records.arguments import arguments
from sngd_tune.records.trial import TrialConfig

__all__ = ["build"]

_BASES = {"sgd": sgd, "adamw": adamw}


def build(model: nn.Module, trial: TrialConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model with `SNGD` (fused form), or the reconstructed model with its base (explicit form).

    Raises:
        ReconstructionError: the local Fisher layers will not fit into memory, or the model has no layer for one.
    """
    optimizer = trial.optimizer
    assert trial.fisher is not None
    if optimizer.form == "explicit":
        rebuilt = reconstruct(model, trial.fisher, seed=trial.seed)
        return rebuilt, _BASES[optimizer.base](rebuilt, optimizer)
    given = arguments(optimizer, optimizer.base)
    return model, SNGD(model, trial.fisher, base=optimizer.base, seed=trial.seed, **given)

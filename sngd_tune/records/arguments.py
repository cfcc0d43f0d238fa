"""From a trial's configuration to the arguments of its optimizer's constructor: what trains and what a recipe says."""

from collections.abc import Callable, Mapping
from typing import Any

from sngd_tune.records.trial import OptimizerConfig

__all__ = ["arguments"]

Arguments = dict[str, Any]


def arguments(config: OptimizerConfig, method: str) -> Arguments:
    """Keyword arguments of the constructor of `method`, which may be a base of SNGD: plain values and lists of them."""
    return {"lr": config.lr, **_OWN[method](config), "weight_decay": config.weight_decay}


def _sgd(config: OptimizerConfig) -> Arguments:
    # Without momentum the two kinds are the same, and torch has a name for one of them only.
    return {"momentum": config.momentum, "nesterov": config.momentum_kind == "nesterov" and config.momentum > 0}


def _betas(config: OptimizerConfig) -> Arguments:
    return {"betas": [config.beta1, config.beta2]}


def _nadamw(config: OptimizerConfig) -> Arguments:
    return {**_betas(config), "decoupled_weight_decay": True}


def _muon(config: OptimizerConfig) -> Arguments:
    return {"momentum": config.momentum, **_betas(config)}


def _soap(config: OptimizerConfig) -> Arguments:
    return {
        **_betas(config),
        "precondition_frequency": config.precondition_interval,
        # A longer side of a matrix, a vocabulary say, has no preconditioner: with the package's own 10,000 a root of
        # ptb_lstm's embedding takes minutes and its matrices 800 MB.
        "max_precondition_dim": 4096,
    }


def _exact_ngd(config: OptimizerConfig) -> Arguments:
    return {"momentum": config.momentum, "relative_damping": config.relative_damping}


_OWN: Mapping[str, Callable[[OptimizerConfig], Arguments]] = {
    "sgd": _sgd,
    "adamw": _betas,
    "nadamw": _nadamw,
    "muon": _muon,
    "soap": _soap,
    "exact_ngd": _exact_ngd,
}

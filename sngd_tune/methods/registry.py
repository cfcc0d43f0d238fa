"""The table of methods, and what a training loop asks of any of them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.optimizer import SNGD
from sngd_tune.core.outputs import observe_outputs
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.errors import ConfigurationError
from sngd_tune.methods import exact_ngd, first_order, muon, soap, structured
from sngd_tune.methods.exact_ngd import ExactNGD
from sngd_tune.reconstruction.layers import ReconstructedLayer
from sngd_tune.records.trial import NEEDS_JOINT_BATCH, OptimizerConfig, TrialConfig

__all__ = ["METHODS", "build", "local_fishers", "output_observer", "time_parts"]

Build = Callable[[nn.Module, TrialConfig], tuple[nn.Module, torch.optim.Optimizer]]


def _on_the_model_as_it_is(make: Callable[[nn.Module, OptimizerConfig], torch.optim.Optimizer]) -> Build:
    return lambda model, trial: (model, make(model, trial.optimizer))


#: By the name that a study gives as ``optimizer``.
METHODS: Mapping[str, Build] = {
    "sngd": structured.build,
    "sgd": _on_the_model_as_it_is(first_order.sgd),
    "adamw": _on_the_model_as_it_is(first_order.adamw),
    "nadamw": _on_the_model_as_it_is(first_order.nadamw),
    "muon": _on_the_model_as_it_is(muon.muon),
    "soap": _on_the_model_as_it_is(soap.soap),
    "exact_ngd": _on_the_model_as_it_is(exact_ngd.exact_ngd),
}


def build(model: nn.Module, trial: TrialConfig, ranks: int = 1) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model to train (rebuilt under the explicit form) and its optimizer.

    Args:
        model: as the workload makes it.
        trial: method and settings.
        ranks: processes that train the model together.

    Raises:
        ConfigurationError: the method needs the joint batch, of which a rank has a part.
    """
    if ranks > 1 and trial.optimizer.method in NEEDS_JOINT_BATCH:
        raise ConfigurationError(
            f"optimizer={trial.optimizer.method!r}: must have the whole batch, so it trains with"
            f" search.resources.workers=1, not {ranks}; try optimizer: sngd"
        )
    return METHODS[trial.optimizer.method](model, trial)


def local_fishers(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, LocalFisher]:
    """The local Fisher layers of either form, by the name of their layer; empty for the baselines."""
    if isinstance(optimizer, SNGD):
        return optimizer.layers
    return {module.name: module for module in model.modules() if isinstance(module, LocalFisher)}


def time_parts(model: nn.Module, optimizer: torch.optim.Optimizer, watch: Stopwatch) -> None:
    """Have the parts of a step that are the method's own counted: ``statistics``, ``refresh``, ``communication``."""
    for fisher in local_fishers(model, optimizer).values():
        fisher.stopwatch = watch
    rebuilt = [module.ranks for module in model.modules() if isinstance(module, ReconstructedLayer)]
    for ranks in [optimizer.ranks] if isinstance(optimizer, SNGD) else rebuilt:
        ranks.stopwatch = watch


def output_observer(model: nn.Module, optimizer: torch.optim.Optimizer, likelihood: str) -> Callable[[Tensor], None]:
    """What has to see the outputs of a training step, before `backward`.

    The local Fisher layers of either form, or `ExactNGD` (for the trials of `TrialConfig.needs_likelihood`).
    """
    if isinstance(optimizer, SNGD | ExactNGD):
        return lambda outputs: optimizer.observe_outputs(outputs, likelihood)
    return lambda outputs: observe_outputs(model, outputs, likelihood)

"""`reconstruct` and `restore`: a model with local Fisher layers, and the plain one back."""

import copy
from itertools import groupby
from typing import TypeVar

from torch import nn

from sngd_tune.core.account import SettingsLike, matches
from sngd_tune.reconstruction import rebase as _rebase  # noqa: F401  its hook serves every optimizer of the process
from sngd_tune.reconstruction.layers import ReconstructedLayer
from sngd_tune.settings import FisherSettings

__all__ = ["reconstruct", "restore"]

M = TypeVar("M", bound=nn.Module)


def reconstruct(model: M, settings: SettingsLike | None = None, *, seed: int = 0) -> M:
    """A copy of `model` in which each layer stands behind its local Fisher layer; same function, same signature.

    Any `torch.optim` optimizer on its parameters then performs natural gradient descent on the original network.
    Refreshes, statistics-only batches at the start and step bounds happen inside that optimizer's `step`; see
    `sngd_tune.reconstruction.rebase`. Which parameters are covered, and why others are not, tells `sngd_tune.account`.

    Args:
        model: stays untouched.
        settings: one `FisherSettings`, or a mapping from module-name patterns to them. Default: `FisherSettings()`.
        seed: of the random start of low-rank sketches.

    Raises:
        ReconstructionError: no layer of the model can get a local Fisher layer.
        SettingsError: a pattern matches no module.
    """
    rebuilt = copy.deepcopy(model)
    found = matches(rebuilt, FisherSettings() if settings is None else settings)
    done = 0
    for path, group in groupby(found, lambda match: match.path):
        sites = list(group)
        layer = ReconstructedLayer(sites, seed + done).train(sites[0].module.training)
        rebuilt = _replace(rebuilt, path, layer)
        done += len(sites)
    return rebuilt


def restore(rebuilt: M) -> M:
    """A copy of `rebuilt` with plain layers again: the original classes, the same function.

    A model without local Fisher layers comes back as a plain copy.
    """
    plain = copy.deepcopy(rebuilt)
    for name, module in list(plain.named_modules()):
        if isinstance(module, ReconstructedLayer):
            plain = _replace(plain, name, module.to_plain())
    return plain


def _replace(model: M, name: str, module: nn.Module) -> M:
    """Put `module` at `name`; the model itself where the name is empty."""
    if not name:
        return module  # type: ignore[return-value]
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
    return model

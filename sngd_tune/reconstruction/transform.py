"""`reconstruct` and `restore`: a model with local Fisher layers, and the plain one back."""

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeVar

from torch import nn

from sngd_tune.core.account import Match, matches
from sngd_tune.core.distributed import Ranks, unwrapped
from sngd_tune.core.memory import check as check_memory
from sngd_tune.errors import ReconstructionError, SettingsError
from sngd_tune.reconstruction import rebase as _rebase  # noqa: F401  its hook serves every optimizer of the process
from sngd_tune.reconstruction.layers import ReconstructedLayer
from sngd_tune.settings import SettingsLike, as_settings

__all__ = ["reconstruct", "restore"]

M = TypeVar("M", bound=nn.Module)


def reconstruct(
    model: M,
    settings: SettingsLike | None = None,
    *,
    seed: int = 0,
    process_group: Any = None,
    compiled: bool = False,
) -> M:
    """A copy of `model` in which each layer stands behind its local Fisher layer; same function, same signature.

    Any `torch.optim` optimizer on its parameters then performs natural gradient descent on the original network.
    Refreshes, statistics-only batches at the start and step bounds happen inside that optimizer's `step`; see
    `sngd_tune.reconstruction.rebase`. Which parameters are covered, and why others are not, tells `sngd_tune.account`.

    Args:
        model: stays untouched.
        settings: as in `SNGD`. Default: `FisherSettings()`.
        seed: of the random start of low-rank sketches.
        process_group: the ranks that train one model together (`sngd_tune.core.distributed`). None: the default group
            where `torch.distributed` is initialized. Give a group of one rank to keep a process alone.
        compiled: whether `torch.compile` will make graphs of what comes out: steps with statistics run eagerly then,
            and all layers take theirs in the same steps (`sngd_tune.core.compiling`).

    Raises:
        ReconstructionError: the local Fisher layers will not fit into memory, no layer of the model can get one, or
            it is wrapped (DDP, `torch.compile`).
        SettingsError: a pattern matches no module, or a layer asks for Levenberg-Marquardt damping.
    """
    if unwrapped(model) is not model:
        raise ReconstructionError(
            f"{type(model).__name__}: must not be wrapped yet, as the wrapper knows the parameters that go; reconstruct"
            " the model first, then wrap or compile what comes out"
        )
    rebuilt = copy.deepcopy(model)
    found = matches(rebuilt, as_settings(settings), together=compiled)
    _refuse_adaptive_damping(found)
    check_memory(found, "explicit")
    done = 0
    for _, group in groupby(found, lambda match: match.path):
        sites = list(group)
        layer = ReconstructedLayer(sites, seed + done, Ranks(process_group)).train(sites[0].module.training)
        rebuilt = _replace(rebuilt, sites[0].module, layer)
        done += len(sites)
    return rebuilt


def restore(rebuilt: M) -> M:
    """A copy of `rebuilt` with plain layers again: the original classes, the same function.

    A model without local Fisher layers comes back as a plain copy.
    """
    plain = copy.deepcopy(rebuilt)
    for module in list(plain.modules()):
        if isinstance(module, ReconstructedLayer):
            plain = _replace(plain, module, module.to_plain())
    return plain


def _refuse_adaptive_damping(found: Sequence[Match]) -> None:
    for match in found:
        if match.settings.damping_policy != "fixed":
            raise SettingsError(
                f"{match.name or 'model'}: damping_policy={match.settings.damping_policy!r}: must be 'fixed' in a"
                " reconstruction, since a torch optimizer does not tell its hooks the loss after a step;"
                " try SNGD(model, settings)"
            )


def _replace(model: M, old: nn.Module, new: nn.Module) -> M:
    """Put `new` wherever `old` is, which may be the model itself, or under several names."""
    if model is old:
        return new  # type: ignore[return-value]
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` tells one name of a module
            if child is old:
                setattr(parent, name, new)
    return model

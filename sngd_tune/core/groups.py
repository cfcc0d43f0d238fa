"""Parameter groups of `SNGD`: what they must hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.errors import SettingsError

__all__ = ["check_layers_whole", "cover"]

Groups = Sequence[Mapping[str, Any]]


def cover(model: nn.Module, groups: Groups | None) -> list[dict[str, Any]]:
    """The groups to train with: all that `model` trains in one, or those of the user, if they cover it.

    Args:
        model: its parameters without ``requires_grad`` need not be in a group.
        groups: as torch's optimizers take them: ``[{"params": […], "lr": 0.01}, …]``.

    Raises:
        SettingsError: a group is not a mapping with ``"params"``, or parameters of the model are in none.
    """
    if groups is None:
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]
    taken = [_listed(i, group) for i, group in enumerate(groups)]
    covered = {parameter for group in taken for parameter in group["params"]}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p not in covered]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise SettingsError(
            f"param_groups: must hold every parameter that trains, and {shown} are in none; add a group for them, or"
            " call requires_grad_(False) on them first"
        )
    return taken


def _listed(i: int, group: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a group with its parameters as a list: torch takes a tensor, any iterable, or named tensors."""
    if not isinstance(group, Mapping) or "params" not in group:
        raise SettingsError(f'param_groups[{i}]={group!r}: must be a mapping with "params"; try {{"params": […]}}')
    held = group["params"]
    params = [held] if isinstance(held, Tensor) else list(held)
    named = [each for each in params if isinstance(each, tuple)]
    if not named:
        return {**group, "params": params}
    return {**group, "params": [each[1] for each in named], "param_names": [each[0] for each in named]}


def check_layers_whole(found: Iterable[Match], groups: Groups) -> None:
    """Refuse weight and bias of one layer in different groups: they move in one matrix (SettingsError)."""
    group_of = {parameter: i for i, group in enumerate(groups) for parameter in group["params"]}
    for match in found:
        numbers = [group_of[parameter] for parameter in match.parameters]
        if len(set(numbers)) > 1:
            parts = ", ".join(f"{name} in {i}" for name, i in zip(match.site.parameters, numbers, strict=True))
            raise SettingsError(
                f"param_groups: must hold all of {match.name or 'the model'} in one group, as its weight and bias move"
                f" together, not {parts}; to train them apart, leave the layer out of the settings (patterns)"
            )

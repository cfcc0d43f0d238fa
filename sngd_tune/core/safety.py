"""NaN and infinity never enter a state: what is looked at, what is counted, and when it is an error.

A step whose gradients are not all finite is skipped whole: no parameter moves, no momentum, no statistics that wait for
gradients, and the schedule stays where it is, as if the batch had not been (as `torch.amp.GradScaler` does). A batch of
statistics that is not finite is left out of ``G``, and the step goes on. Both are counted in the layers, which every
checkpoint holds; the first is warned of, and `MAX_SKIPPED` in a row are an error.
"""

import math
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sngd_tune.errors import NonFiniteError

__all__ = ["MAX_SKIPPED", "all_finite", "first_few", "norms", "report"]

#: Steps, or batches of a layer, skipped in a row that are an error, where the user gives no other number.
MAX_SKIPPED = 10

_REMEDY = "training has diverged, or the data holds NaN; try a smaller lr or more damping, and look at the data"


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """The norm (Frobenius) of each tensor; one launch, and one look at a GPU, for all of them.

    Of half precisions in float32: the norm leaves their range where no entry does. A norm that overflows is infinite.
    """
    if not tensors:
        return []
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    each = torch._foreach_norm(list(tensors), 2, wide)
    device = each[0].device
    values: list[float] = torch.stack([norm if norm.device == device else norm.to(device) for norm in each]).tolist()
    return values


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no entry of any tensor is NaN or infinite. Finite entries whose norm overflows count as infinite."""
    return math.isfinite(sum(norms(tensors)))


def first_few(names: Iterable[str]) -> str:
    """At most three of the names, for a message; the layers behind a bad one are bad as well."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def report(what: str, in_row: int, total: int, limit: int) -> None:
    """Warn of the first in all, raise at the last of too many in a row.

    Args:
        what: is not finite, with the layer's name: ``"0: the gradient"``.
        in_row: how many times without a good one in between, ≥ 1.
        total: how many times at all.
        limit: from how many in a row on it is an error.

    Raises:
        NonFiniteError: `in_row` has reached `limit`.
    """
    if in_row >= limit:
        raise NonFiniteError(f"{what} held NaN or infinity {in_row} times in a row; {_REMEDY}")
    if total == 1:
        warnings.warn(f"{what} holds NaN or infinity; it is left out (and counted; this is said once)", stacklevel=4)

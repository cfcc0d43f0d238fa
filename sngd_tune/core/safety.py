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

__all__ = ["MAX_SKIPPED", "all_finite", "first_few", "report"]

#: Steps, or batches of a layer, skipped in a row that are an error, where the user gives no other number.
MAX_SKIPPED = 10

_REMEDY = "training has diverged, or the data holds NaN; try a smaller lr or more damping, and look at the data"


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no entry of any tensor is NaN or infinite; one look, for which a GPU is waited for once.

    On a CPU sums cost half of norms (13 µs against 20 for the gradients of a 784-80-80-80-10 network, whose SGD step
    takes 1.3 ms); on a GPU the fused norms are one launch. Finite entries whose sum overflows count as infinite.
    """
    if not tensors:
        return True
    if not any(tensor.is_cuda for tensor in tensors):
        return math.isfinite(sum([_sum(tensor).item() for tensor in tensors]))
    norms = torch._foreach_norm(list(tensors))
    return bool(torch.stack([norm.to(norms[0].device, torch.float32) for norm in norms]).isfinite().all())


def _sum(tensor: Tensor) -> Tensor:
    """Half precisions are summed in float32: their sums leave the range where no entry does."""
    return tensor.sum(dtype=torch.float32) if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.sum()


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

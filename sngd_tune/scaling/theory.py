"""What counting multiplications says of each part of a step.

Of a network of width ``d`` (``d_in`` and ``d_out`` of its layers together), batches of ``b`` examples, ``r`` the rank
with the sketch's extra columns, ``k`` the size of a block:

===================  ==================  ===================  =================  ==================
granularity          statistics          refresh              apply (update)     state
===================  ==================  ===================  =================  ==================
``diagonal``         ``b d``             ``d``                ``d²``             ``d``
``block:k``          ``b d k``           ``d k²``             ``d² k``           ``d k``
``input``, rank r    ``b d r``           ``d r²``             ``d² r``           ``d r``
``input``, dense     ``b d²``            ``d³``               ``d³``             ``d²``
``kron``             ``b d²``            ``d³``               ``d³``             ``d²``
``unit``             ``b d³``            ``d⁴``               ``d³``             ``d³``
``layer``            ``b d⁴``            ``d⁶``               ``d⁴``             ``d⁴``
===================  ==================  ===================  =================  ==================

(For one row of the gradient a dense application is ``d²``; there are ``d`` rows.) Forward and backward pass take
``b d²``. Statistics and refreshes are means over all steps: one over their interval. What ranks exchange, in bytes, are
``d²`` gradients a step, whatever the batch, and the state, once an interval.

These are limits of large sizes. Below them every part has a floor of calls and memory traffic, which a fit takes up
(`fits`), layers at the ends of a network have one side that does not grow, and BLAS is faster on larger matrices. So a
measured exponent below theory's is the usual finding at small widths, and one above it is the one to look into.
"""

import re
from typing import Literal

__all__ = ["OF_ANY_METHOD", "PARTS", "expected_exponent"]

Part = Literal["forward_backward", "statistics", "refresh", "update", "state", "communication"]

PARTS: tuple[Part, ...] = ("forward_backward", "statistics", "refresh", "update", "state", "communication")
#: Parts that a method without local Fisher layers has as well.
OF_ANY_METHOD: tuple[Part, ...] = ("forward_backward", "communication")

#: Exponents in the width: statistics, refresh, update, state, communication.
_WIDTH: dict[str, tuple[int, int, int, int, int]] = {
    "diagonal": (1, 1, 2, 1, 2),
    "block": (1, 1, 2, 1, 2),
    "low rank": (1, 1, 2, 1, 2),
    "input": (2, 3, 3, 2, 2),
    "kron": (2, 3, 3, 2, 2),
    "unit": (3, 4, 3, 3, 3),
    "layer": (4, 6, 4, 4, 4),
}
#: In what else a part grows with. Passes and statistics go over the batch; statistics and refreshes come at intervals.
_BATCH: dict[str, int] = {"forward_backward": 1, "statistics": 1}
_RANK: dict[str, int] = {"statistics": 1, "refresh": 2, "update": 1, "state": 1}
_INTERVALS = {"fisher_interval": "refresh", "statistics_interval": "statistics"}


def expected_exponent(part: Part, axis: str, granularity: str = "input", *, rank: int | None = None) -> float | None:
    """Theory's exponent of a part's seconds per step (``"state"``: of bytes) along an axis.

    Args:
        part: one of `PARTS`.
        axis: ``width``, ``batch_size``, ``depth``, ``rank`` or an interval; of the plain method as well.
        granularity: of the local Fisher layers; without meaning for ``"forward_backward"``. Where there are none,
            ``"diagonal"``: gradients are what is exchanged.
        rank: of the root; None: dense.

    Returns:
        None where theory says nothing: an unknown axis, ``rank`` of what has none, or a sum of two powers.

    >>> expected_exponent("refresh", "width"), expected_exponent("refresh", "fisher_interval")
    (3.0, -1.0)
    """
    kind = _kind(granularity, rank)
    if axis == "depth":
        return 1.0
    if axis == "width":
        return 2.0 if part == "forward_backward" else float(_WIDTH[kind][PARTS.index(part) - 1])
    if axis == "batch_size":
        return float(_BATCH.get(part, 0))
    if axis in _INTERVALS:
        return -1.0 if _INTERVALS[axis] == part else None if _shares_steps(part, axis) else 0.0
    if axis == "rank" and kind == "low rank":
        return None if part == "communication" else float(_RANK.get(part, 0))
    return None


def _kind(granularity: str, rank: int | None) -> str:
    plain = re.sub(r":.*", "", granularity)
    return "low rank" if plain == "input" and rank is not None else plain


def _shares_steps(part: str, axis: str) -> bool:
    """What is no power of an interval: a refresh takes statistics of its own, and gradients are exchanged each step."""
    return part == "communication" or (part == "statistics" and axis == "fisher_interval")

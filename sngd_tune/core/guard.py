"""The look at a step's gradients that both forms take before anything moves (the rules: `core.safety`)."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from sngd_tune.core.distributed import Ranks
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.safety import first_few, norms, report

__all__ = ["finite_norms"]


def finite_norms(
    gradients: Sequence[Tensor],
    names: Callable[[], Sequence[str]],
    fishers: Sequence[LocalFisher],
    limit: int,
    ranks: Ranks,
) -> list[float] | None:
    """The norm of each gradient; None where one is not finite: the step counts as skipped in every layer then.

    Args:
        gradients: of all that the optimizer trains.
        names: of the layer, or the parameter, of each; asked for only where one is not finite.
        fishers: the local Fisher layers among them, at least one.
        limit: skipped steps in a row that are an error.
        ranks: all of them skip a step that one has to skip.

    Raises:
        NonFiniteError: this step makes it `limit` in a row.
    """
    lengths = norms(gradients)
    if ranks.all_agree(math.isfinite(sum(lengths)), fishers[0].damping.device):
        return lengths
    for fisher in fishers:
        fisher.skip()
    bad = [name for name, length in zip(names(), lengths, strict=True) if not math.isfinite(length)]
    what = f"{first_few(bad) or 'on another rank'}: the gradient"
    report(what, fishers[0].skipped_steps_in_row, fishers[0].skipped_steps, limit)
    return None

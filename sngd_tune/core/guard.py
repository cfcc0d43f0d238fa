"""The look at a step's gradients that both forms take before anything moves (the rules: `core.safety`)."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from sngd_tune.core.distributed import Ranks
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.safety import all_finite, first_few, report

__all__ = ["step_is_finite"]


def step_is_finite(
    parameters: Iterable[Tensor],
    fishers: Sequence[LocalFisher],
    name_of: Callable[[Tensor], str],
    limit: int,
    ranks: Ranks,
) -> bool:
    """Whether all gradients are finite; where they are not, the step counts as skipped in every layer.

    Args:
        parameters: all that the optimizer trains.
        fishers: the local Fisher layers among them, at least one.
        name_of: the layer, or the name, of a parameter.
        limit: skipped steps in a row that are an error.
        ranks: all of them skip a step that one has to skip.

    Raises:
        NonFiniteError: this step makes it `limit` in a row.
    """
    trained = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    finite = all_finite([gradient for _, gradient in trained])
    if ranks.all_agree(finite, fishers[0].damping.device):
        return True
    for fisher in fishers:
        fisher.skip()
    bad = [name_of(parameter) for parameter, gradient in trained if not bool(gradient.isfinite().all())]
    what = f"{first_few(bad) or 'on another rank'}: the gradient"
    report(what, fishers[0].skipped_steps_in_row, fishers[0].skipped_steps, limit)
    return False

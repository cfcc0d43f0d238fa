"""Several forward passes in one optimizer step: a cell that runs over time, a weight used twice, accumulated gradients.

They are one batch. Each of them as an update of its own would let the last few stand for the step: with ``decay = 0.9``
the last ten of 35 time steps would carry two thirds of ``G``, and all batches before a fortieth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates import Estimate, State
from sngd_tune.core.inputs import Inputs

__all__ = ["Passes"]


class Passes:
    """Takes the passes of a step into a running estimate as if they were one batch.

    An update is affine in its batch, so the average of the states after each pass alone is the state after the joint
    batch. This needs the state before the step, which is kept from the step on that shows a second pass: layers that
    run once a step pay nothing. (If passes come to be several in the middle of training, the first of them alone counts
    in that one step.)

    Args:
        estimate: which is updated.
        decay: weight of the past, once a step.
        seed: of the estimate's initial state.

    Attributes:
        several: whether some step has had several passes.
        batches: steps that have entered the estimate.
    """

    def __init__(self, estimate: Estimate, decay: float, seed: int):
        self._estimate, self._decay, self._seed = estimate, decay, seed
        self.several = False
        self.batches = 0
        self._before: State | None = None
        self._rows = 0

    @torch.no_grad()
    def take(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], rows: int) -> None:
        """Take a pass into `state`, in place.

        Args:
            state: of the estimate.
            inputs: and `gradients` as in `Estimate.update`.
            gradients: see there.
            rows: of the pass, > 0, by which the passes of a step are weighted; `inputs` may be a sample of them.
        """
        if not self._rows:
            self._before = _copy(state) if self.several else None
            self._rows, self.batches = rows, self.batches + 1
            self._estimate.update(state, inputs, gradients, self._decay)
            return
        self.several = True
        if self._before is None:
            if self.batches > 1:
                return
            self._before = self._initial(state)
        self._rows += rows
        alone = _copy(self._before)
        self._estimate.update(alone, inputs, gradients, self._decay)
        for name, tensor in state.items():
            tensor.lerp_(alone[name], rows / self._rows)

    def _initial(self, state: State) -> State:
        """The state before all batches."""
        weight, generator = state["weight"], torch.Generator().manual_seed(self._seed)
        return self._estimate.init(weight.dtype, weight.device, generator)

    def close(self) -> None:
        """End the step."""
        self._before, self._rows = None, 0

    def counters(self) -> dict[str, int]:
        """What a resumed run has to know."""
        return {"several": int(self.several), "batches": self.batches}

    def restore(self, counters: dict[str, int]) -> None:
        """Inverse of `counters`."""
        self.several, self.batches = bool(counters["several"]), counters["batches"]


def _copy(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}

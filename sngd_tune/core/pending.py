"""`PendingBatch`: what a layer saw in a forward pass, while it waits for the gradients of its pre-activations.

The training step's gradients (``fisher="empirical"``) are those of the loss that is differentiated, whatever scales
it: a `GradScaler`'s factor ``c``, a division for gradient accumulation. ``G`` is ``c²`` as large then and the natural
gradient ``1/c²`` as long, with the damping along, as it is relative. Under ``step_bound="graft"``, or with Adam behind
it, this makes no difference; elsewhere a constant ``c`` belongs to the learning rate. Drawn targets carry no scale.
"""

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge, register_multi_grad_hook

from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Joint

__all__ = ["PendingBatch", "on_gradient"]


class PendingBatch:
    """Inputs of one forward pass, and the gradients of its pre-activations as they come.

    Args:
        inputs: the rows ``a: [*lead, m, d]`` that enter ``G``, in the precision of the statistics.
        dtype: of the statistics.
        count: rows of the batch, ``n``: positions in ``sharing="expand"``, examples in ``"reduce"``.
        index: numbers of those that enter ``G``, ``[m]``; None for all.
        arrange: brings a gradient into rows, ``n`` of them or a multiple (the positions of each example together).

    Attributes:
        inputs: as given.
        count: as given.
        gradients: rows ``g: [*lead, m, d_out]`` in the order of `inputs`, one tensor for each target.
        edges: places in the graph whose gradients `observe_outputs` takes; none where the training step brings them.
    """

    def __init__(
        self,
        inputs: Inputs,
        dtype: torch.dtype,
        count: int,
        index: Tensor | None,
        arrange: Callable[[Tensor], Tensor],
    ):
        self.inputs = inputs
        self.gradients: list[Tensor] = []
        self.edges: tuple[GradientEdge, ...] = ()
        self._dtype, self.count, self._index, self._arrange = dtype, count, index, arrange
        self._join: Callable[[Sequence[Tensor | None]], Tensor] = _only

    def watch(self, output: Tensor | Joint, own: bool, collecting: Callable[[], bool]) -> bool:
        """Wait for the gradients of `output`; False where it has none.

        Args:
            output: as `Seen` has it.
            own: whether the training step's own backward passes bring them; else `observe_outputs` does.
            collecting: whether a backward pass under way is the training step's.
        """
        if not all(tensor.requires_grad for tensor in _tensors(output)):
            return False
        if own:
            self._collect(output, collecting)
        else:
            # Of the tensors as they are now: an activation that works in place would put itself before them.
            self.edges = tuple(map(get_gradient_edge, _tensors(output)))
            self._join = _joining(output)
        return True

    def add(self, gradients: Sequence[Tensor | None], terms: int) -> None:
        """Take the gradients that came past `edges` for one more target; none of them means that it has none.

        Args:
            gradients: of a loss that is a sum.
            terms: what it must be divided by to be a mean.
        """
        if any(gradient is not None for gradient in gradients):
            self.gradients.append(self._rows(self._join(gradients), terms))

    def _collect(self, output: Tensor | Joint, collecting: Callable[[], bool]) -> None:
        # Weak, so that a graph that the user keeps does not keep the batch.
        reference = weakref.ref(self)

        def collect(gradient: Tensor) -> None:
            batch = reference()
            if batch is not None and collecting():
                g = batch._rows(gradient)
                # Several backward passes through one graph are one of the sum of their losses.
                batch.gradients = [batch.gradients[0] + g if batch.gradients else g]

        on_gradient(output, collect)

    @torch.no_grad()
    def _rows(self, gradient: Tensor, terms: int = 1) -> Tensor:
        """Each row's own gradient, ``[*lead, m, d_out]``: `n` times that of a loss that is a mean over the rows."""
        g = self._arrange(gradient.detach()).to(self._dtype)
        if g.shape[-2] != self.count:
            g = g.unflatten(-2, (self.count, -1)).sum(-2)
        if self._index is not None:
            g = g.index_select(-2, self._index)
        return g * (self.count / terms)


def on_gradient(output: Tensor | Joint, hook: Callable[[Tensor], object]) -> None:
    """Call `hook` with the gradient of `output` in each backward pass that comes past it."""
    if isinstance(output, Tensor):
        output.register_hook(hook)
    else:
        join = output.join

        def joint(gradients: Sequence[Tensor | None]) -> None:
            hook(join(gradients))

        register_multi_grad_hook(output.tensors, joint)


def _tensors(output: Tensor | Joint) -> Sequence[Tensor]:
    return (output,) if isinstance(output, Tensor) else output.tensors


def _joining(output: Tensor | Joint) -> Callable[[Sequence[Tensor | None]], Tensor]:
    """What makes one gradient of those of `_tensors`, not all of which are None."""
    return _only if isinstance(output, Tensor) else output.join


def _only(gradients: Sequence[Tensor | None]) -> Tensor:
    (gradient,) = gradients
    assert gradient is not None
    return gradient

"""``"kron"``: ``A = E[a aᵀ]`` before the layer and ``B = E[g gᵀ]`` after it (Martens and Grosse 2015)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates.base import Estimate, State, advance_weight, probed
from sngd_tune.core.estimates.dense import InputEstimate
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import KronOperator, RootOperator
from sngd_tune.core.snapshots import KronSnapshot, Snapshot

__all__ = ["KronEstimate"]

_INPUT, _OUTPUT = "input_", "output_"


class KronEstimate(Estimate):
    """``G = B ⊗ A`` from ``A: [*lead, d, d]`` and ``B: [*lead, d_out, d_out]``, with dense roots.

    The damping is split by norm: ``(B + λ_B I) ⊗ (A + λ_A I)`` with ``λ_A = π √λ``, ``λ_B = √λ / π`` and
    ``π² = mean(diag A) / mean(diag B)`` (their section 6.3), where ``λ = relative · mean(diag A) · mean(diag B) +
    absolute``. So the whole scales with ``B``, and each factor is damped in proportion to its own size.
    """

    def __init__(self, shape: Shape, root: str):
        super().__init__(shape)
        self._input = InputEstimate(shape, root)
        self._output = InputEstimate(Shape(shape.lead, shape.d, shape.d_out), root)

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        weight = torch.zeros((), dtype=dtype, device=device)
        sides = (_INPUT, self._input), (_OUTPUT, self._output)
        values = {f"{side}value": torch.zeros(of.kept, dtype=dtype, device=device) for side, of in sides}
        return {"weight": weight, **values}

    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        self._input.take(state["input_value"], inputs.chunks(), inputs.count, decay)
        self._output.take(state["output_value"], gradients, inputs.count, decay)
        advance_weight(state, decay)

    def mean_diagonal(self, state: State) -> Tensor:
        input_mean, output_mean = self._means(state)
        return input_mean * output_mean

    def _means(self, state: State) -> tuple[Tensor, Tensor]:
        """Means of the diagonals of ``A`` and ``B``, ``[*lead]`` each."""
        parts = _side(state, _INPUT), _side(state, _OUTPUT)
        return self._input.mean_diagonal(parts[0]), self._output.mean_diagonal(parts[1])

    def damped_mean(self, state: State, damping: Tensor) -> Tensor:
        """Of the product of the damped factors, ``(mean(diag A) + λ_A) (mean(diag B) + λ_B)``, ``[*lead]``."""
        (input_mean, output_mean), (of_input, of_output) = self._means(state), self._split(state, damping)
        return (input_mean + of_input) * (output_mean + of_output)

    def _split(self, state: State, damping: Tensor) -> tuple[Tensor, Tensor]:
        """``λ_A`` and ``λ_B``, ``[*lead]`` each."""
        input_mean, output_mean = self._means(state)
        both = (input_mean > 0) & (output_mean > 0)
        pi = torch.where(both, input_mean / torch.where(both, output_mean, 1), 1).sqrt()  # even where one is 0
        return damping.sqrt() * pi, damping.sqrt() / pi

    @property
    def starts_from_last(self) -> bool:
        return self._input.starts_from_last

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        of_input, of_output = self._split(state, damping)
        before = (last.inner, last.outer) if isinstance(last, KronOperator) else (None, None)
        return KronOperator(
            self._input.refresh(_side(state, _INPUT), of_input, before[0]),
            self._output.refresh(_side(state, _OUTPUT), of_output, before[1]),
        )

    def fingerprint(self, state: State) -> Tensor:
        """As in the base class: both factors probed from both sides, and their product, ``[*lead, 64, 64]`` at most."""
        small = [
            probed(probed(side.snapshot(_side(state, prefix)).value).mT, seed=1)
            for prefix, side in ((_INPUT, self._input), (_OUTPUT, self._output))
        ]
        return (small[1][..., :, None, :, None] * small[0][..., None, :, None, :]).flatten(-4)

    def operator(self, tensors: State) -> RootOperator:
        return KronOperator(
            self._input.operator(_part(tensors, _INPUT)), self._output.operator(_part(tensors, _OUTPUT))
        )

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return KronOperator(self._input.identity(dtype, device), self._output.identity(dtype, device))

    def snapshot(self, state: State) -> Snapshot:
        inputs, outputs = _side(state, _INPUT), _side(state, _OUTPUT)
        return KronSnapshot(self._input.snapshot(inputs).value, self._output.snapshot(outputs).value)


def _side(state: State, prefix: str) -> State:
    """One factor's state, of the same tensors."""
    return {"weight": state["weight"], "value": state[f"{prefix}value"]}


def _part(tensors: State, prefix: str) -> State:
    """One factor's tensors of those of a `KronOperator`."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

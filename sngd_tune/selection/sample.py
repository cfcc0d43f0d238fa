"""`LayerSample`: what some batches showed of one layer, gathered as it is needed later and bounded in size.

Layers wider than `MAX_INPUTS` or `MAX_OUTPUTS` are judged by so many of their inputs and outputs, drawn once: what is
estimated from them are ratios, and the work stays the same for a layer of any width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.core.layers.base import Shape
from sngd_tune.selection.observation import Observation, Pass

__all__ = ["MAX_INPUTS", "MAX_OUTPUTS", "LayerSample", "Sampler"]

MAX_INPUTS, MAX_OUTPUTS = 1024, 1024
#: Of a batch that are kept, of whatever number it has.
_ROWS = 1024


@dataclass(frozen=True)
class LayerSample:
    """Moments of a layer over `batches` batches; ``L`` matrices side by side, at most `MAX_INPUTS` by `MAX_OUTPUTS`.

    Attributes:
        inputs: ``G = E[a aᵀ]: [L, d, d]``; of one-hot inputs its diagonal, ``[L, d]``.
        gradient: mean gradient, ``[L, d_out, d]``.
        outputs: ``[L, d_out, d_out]``, the covariance ``B`` of the output side in the Kronecker model ``B ⊗ G`` of an
            example's gradient, from the spread of the batches' gradients: ``Cov(∇) = B ⊗ G / examples``.
        batches: how many.
        examples: of a batch, on average.
        batch_noise: ``E‖G_batch − G‖ / ‖G‖`` (Frobenius): how far one batch's ``G`` is off; 0 from one batch.
    """

    inputs: Tensor
    gradient: Tensor
    outputs: Tensor
    batches: int
    examples: float
    batch_noise: float

    @property
    def one_hot(self) -> bool:
        """Whether ``G`` is diagonal by nature."""
        return self.inputs.dim() == 2


class Sampler:
    """Gathers the `LayerSample` of a layer, batch by batch; sums in float64, as differences of moments are what counts.

    Args:
        shape: of the layer.
        device: of the model.
        seed: of what is drawn.
    """

    def __init__(self, shape: Shape, device: torch.device, seed: int):
        self._shape = shape
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._columns = self._drawn(shape.d, MAX_INPUTS)
        self._lines = self._drawn(shape.d_out, MAX_OUTPUTS)
        self._sums: dict[str, Tensor] = {}
        self._batches, self._examples, self._squares = 0, 0, 0.0

    @property
    def share(self) -> float:
        """Of the layer's parameters that are looked at, in (0, 1]."""
        return len(self._columns) * len(self._lines) / (self._shape.d * self._shape.d_out)

    @torch.no_grad()
    def add(self, seen: Observation) -> None:
        """Take one batch."""
        moment = self._moment(seen)
        gradient = self._gradient(seen)
        self._add("inputs", moment)
        self._add("gradient", gradient)
        self._add("outer", gradient @ gradient.mT)
        self._squares += float(moment.square().sum())
        self._batches += 1
        self._examples += sum(each.inputs.examples for each in seen.passes[:1])

    def sample(self) -> LayerSample:
        """What has been gathered; at least two batches."""
        count = self._batches
        inputs, gradient = self._sums["inputs"] / count, self._sums["gradient"] / count
        spread = (self._sums["outer"] / count - gradient @ gradient.mT) * (count / (count - 1))
        trace = (inputs if inputs.dim() == 2 else inputs.diagonal(dim1=-2, dim2=-1)).sum(-1)
        examples = self._examples / count
        outputs = spread * (examples / trace.clamp(min=torch.finfo(trace.dtype).tiny))[:, None, None]
        norm = float(inputs.square().sum())
        noise = max(self._squares / count - norm, 0.0) * count / (count - 1)
        # Differences are taken; what follows is products and eigenvectors above a damping, for which float32 is enough.
        moments = inputs.float(), gradient.float(), outputs.float()
        return LayerSample(*moments, count, examples, (noise / norm) ** 0.5 if norm else 0.0)

    def _moment(self, seen: Observation) -> Tensor:
        """``G`` of a batch, its passes weighted by their rows."""
        return sum(self._pass_moment(each) * (each.inputs.count / seen.rows) for each in seen.passes)  # type: ignore[return-value]

    def _pass_moment(self, each: Pass) -> Tensor:
        inputs, count = each.inputs, each.inputs.count
        if self._shape.one_hot:
            return self._side_by_side(inputs.diagonal())[:, self._columns].double()
        if count > _ROWS:
            drawn = torch.randint(count, (_ROWS,), generator=self._generator)
            inputs = inputs.take(drawn.to(self._device))
        rows = self._side_by_side(inputs.rows())[..., self._columns]
        return (rows.mT @ rows).double() / rows.shape[-2]

    def _gradient(self, seen: Observation) -> Tensor:
        whole = self._side_by_side(seen.gradient)
        return whole[:, self._lines][..., self._columns].double()

    def _side_by_side(self, tensor: Tensor) -> Tensor:
        """``[*lead, …]`` as ``[L, …]``, on the CPU."""
        lead = len(self._shape.lead)
        return tensor.reshape(self._shape.matrices, *tensor.shape[lead:]).cpu()

    def _drawn(self, size: int, most: int) -> Tensor:
        """Numbers of inputs or outputs, ascending; the last (the bias) among them."""
        if size <= most:
            return torch.arange(size)
        chosen = torch.randperm(size - 1, generator=self._generator)[: most - 1].sort().values
        return torch.cat((chosen, torch.tensor([size - 1])))

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value

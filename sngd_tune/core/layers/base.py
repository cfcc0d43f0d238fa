"""What the method has to know of a kind of layer: where its weight matrices are, and what they were multiplied with."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from sngd_tune.core.inputs import Inputs
from sngd_tune.core.operators import Parts

__all__ = ["Joint", "LayerKind", "Seen", "Shape", "Site"]


@dataclass(frozen=True)
class Shape:
    """Of the weight matrices of a site, ``W: [*lead, d_out, d]``.

    Attributes:
        lead: independent matrices side by side (the groups of a convolution, queries, keys and values); often ``()``.
        d_out: outputs of each.
        d: inputs of each, the bias's 1 included.
        one_hot: the inputs are unit vectors, whose ``E[a aᵀ]`` is diagonal.
        positions: of the kernel of a convolution (columns are ordered channel by channel); 1 elsewhere.
    """

    lead: tuple[int, ...]
    d_out: int
    d: int
    one_hot: bool = False
    positions: int = 1

    @property
    def matrices(self) -> int:
        """How many there are side by side."""
        return math.prod(self.lead)


@dataclass(frozen=True)
class Site:
    """A place in a module where a weight matrix is applied: ``s = W a``.

    Attributes:
        suffix: the site's name within its module; empty where the module has one site.
        parameters: the weight and, if there is one, the bias, as attribute paths from the module.
        shape: of the matrices.
        gradients: whether the gradients ``g`` of ``s`` can be seen, which some granularities need.
    """

    suffix: str
    parameters: tuple[str, ...]
    shape: Shape
    gradients: bool = True

    def matrices(self, parts: Parts) -> Parts:
        """Tensors of the parameters' shapes as views ``([*lead, d_out, d_in], [*lead, d_out])``."""
        rows = (*self.shape.lead, self.shape.d_out)
        return (parts[0].reshape(*rows, -1), *(part.reshape(rows) for part in parts[1:]))

    def shaped(self, matrices: Parts, like: Parts) -> Parts:
        """Inverse of `matrices`: tensors of the shapes of `like`."""
        return tuple(matrix.reshape(tensor.shape) for matrix, tensor in zip(matrices, like, strict=True))


class Joint(Protocol):
    """Several tensors of the graph that stand for one."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors."""

    def join(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Their gradients as one; None where a tensor was not reached."""


@dataclass(frozen=True)
class Seen:
    """What a forward pass showed of a site.

    Attributes:
        inputs: the rows ``a``.
        output: a tensor of the graph that holds ``s``; None where `Site.gradients` is False.
        arrange: brings the gradient of `output` into rows ``g: [*lead, n, d_out]``, in the order of `inputs`.
    """

    inputs: Inputs
    output: Tensor | Joint | None
    arrange: Callable[[Tensor], Tensor]


class LayerKind(ABC):
    """One kind of layer. A kind holds no state; it is asked about modules."""

    #: Exact classes; a subclass may compute anything in its forward.
    modules: ClassVar[tuple[type[nn.Module], ...]]

    #: Whether columns are input channels times kernel positions: what ``block:channel`` and ``block:position`` need.
    convolves: ClassVar[bool] = False

    #: Reasons why other parameters of such modules have no local Fisher layer, by their names.
    plain: ClassVar[Mapping[str, str]] = {}

    def refusal(self, module: nn.Module) -> str | None:
        """Why this module cannot have local Fisher layers, or None."""
        return None

    @abstractmethod
    def sites(self, module: nn.Module) -> Sequence[Site]:
        """The places where weights are applied, in the order of `seen`."""

    def watch(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Entered around the module's forward pass on statistics batches; its value goes to `seen`."""
        return nullcontext()

    @abstractmethod
    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        """What the forward pass ``output = module(*args, **kwargs)`` showed, one for each of `sites`."""

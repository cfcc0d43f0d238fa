"""What a layer saw in a forward pass: the ``a`` of ``s = W a``, in the form in which its statistics are cheapest.

`Rows` holds the inputs themselves. `Patches` (convolutions) and `Tokens` (embeddings) stand for rows that nobody has to
write down: every statistic that has a shorter way overrides it, and `chunks` writes rows down a few at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Inputs", "Rows", "distinct", "with_bias_input"]


def with_bias_input(x: Tensor, bias: bool) -> Tensor:
    """The inputs ``[..., d_in]`` of a layer with the final 1 that stands for its bias, ``[..., d_in + 1]``."""
    return torch.nn.functional.pad(x, (0, 1), value=1.0) if bias else x


def distinct(rows: Tensor) -> Tensor:
    """``[*lead, n, d]`` with a leading dimension of 1 where all its matrices are one and the same (`Tensor.expand`)."""
    return rows[:1] if rows.dim() > 2 and rows.stride(0) == 0 else rows


class Inputs(ABC):
    """The rows ``a: [*lead, n, d]`` of one batch; ``n = examples × positions``, the positions of an example together.

    Attributes:
        examples: examples in the batch, ≥ 0; it divides ``n``.
        count: ``n``, the same for every leading index.
    """

    examples: int
    count: int

    @abstractmethod
    def rows(self) -> Tensor:
        """All of them, ``[*lead, n, d]``."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> "Inputs":
        """The same in another precision."""

    @abstractmethod
    def is_finite(self) -> bool:
        """Whether no entry is NaN or infinity."""

    @abstractmethod
    def take(self, index: Tensor) -> "Inputs":
        """The rows of these numbers (int64, ``[m]``), each an example of its own."""

    def chunks(self) -> Iterator[Tensor]:
        """The rows, ``[*lead, m, d]`` at a time, in order."""
        yield self.rows()

    def diagonal(self) -> Tensor:
        """``E[a²]``, ``[*lead, d]``."""
        return self.rows().square().mean(-2)

    def squared_norm(self) -> Tensor:
        """``E[‖a‖²]``, ``[*lead]``: the trace of ``E[a aᵀ]``."""
        return self.diagonal().sum(-1)

    def sketch(self, basis: Tensor) -> Tensor:
        """``E[a aᵀ] Ω`` for ``Ω: [*lead, d, l]``; ``[*lead, d, l]``."""
        rows = self.rows()
        return rows.mT @ (rows @ basis) / self.count

    def reduced(self) -> "Inputs":
        """One row an example: the mean over its positions (``sharing="reduce"``)."""
        if self.count == self.examples:
            return self
        rows = self.rows()
        return Rows(rows.unflatten(-2, (self.examples, -1)).mean(-2))


class Rows(Inputs):
    """Rows as they are.

    Args:
        a: ``[*lead, n, d]``.
        examples: of the batch; None where each row is one.
    """

    def __init__(self, a: Tensor, examples: int | None = None):
        self._a = a
        self.count = a.shape[-2]
        self.examples = self.count if examples is None else examples

    @classmethod
    def of(cls, x: Tensor, bias: bool) -> "Rows":
        """From the inputs ``[examples, *positions, d_in]`` of a linear layer; a single row may lack the first."""
        a = with_bias_input(x.detach(), bias)
        return cls(a.reshape(-1, a.shape[-1]), len(a) if a.dim() > 1 else 1)

    def rows(self) -> Tensor:
        return self._a

    def to(self, dtype: torch.dtype) -> "Rows":
        return self if self._a.dtype == dtype else Rows(self._a.to(dtype), self.examples)

    def is_finite(self) -> bool:
        flat = self._a.reshape(-1)
        return bool(
            torch.dot(flat, flat).isfinite()
        )  # one pass without a temporary; a square that overflows is no loss

    def take(self, index: Tensor) -> "Rows":
        return Rows(self._a.index_select(-2, index))

    def squared_norm(self) -> Tensor:
        if self._a.dim() > 2:
            return super().squared_norm()
        flat = self._a.reshape(-1)
        return torch.dot(flat, flat) / self.count

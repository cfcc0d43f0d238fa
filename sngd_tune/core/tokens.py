"""The inputs of embeddings: unit vectors, as numbers."""

import torch
from torch import Tensor

from sngd_tune.core.inputs import Inputs

__all__ = ["Tokens"]


class Tokens(Inputs):
    """Rows ``a = mean of the unit vectors e_i``, one for each row of numbers; nobody writes the vectors down.

    Args:
        numbers: int64, ``[n, p]``; ``p = 1`` for the rows of `nn.Embedding` themselves.
        d: length of the vectors, > every number.
        examples: of the batch; None where each row is one.
        dtype: of the statistics.
    """

    def __init__(self, numbers: Tensor, d: int, examples: int | None = None, dtype: torch.dtype = torch.float32):
        self._numbers = numbers
        self._d = d
        self._dtype = dtype
        self.count = len(numbers)
        self.examples = self.count if examples is None else examples

    @classmethod
    def of(cls, index: Tensor, d: int, dtype: torch.dtype) -> "Tokens":
        """From the numbers ``[examples, *positions]`` that an embedding looked up; a single one may lack the first."""
        return cls(index.reshape(-1, 1).long(), d, len(index) if index.dim() else 1, dtype)

    def rows(self) -> Tensor:
        """All of them written down, ``[n, d]``: only the shorter ways below are affordable for a vocabulary."""
        share = torch.full_like(self._numbers, 1, dtype=self._dtype) / self._numbers.shape[1]
        return share.new_zeros(self.count, self._d).scatter_add_(1, self._numbers, share)

    def to(self, dtype: torch.dtype) -> "Tokens":
        return self if dtype == self._dtype else Tokens(self._numbers, self._d, self.examples, dtype)

    def is_finite(self) -> bool:
        return True

    def take(self, index: Tensor) -> "Tokens":
        return Tokens(self._numbers.index_select(0, index), self._d, dtype=self._dtype)

    def diagonal(self) -> Tensor:
        """How often each number comes, over ``n``; for means of several, the mean squared share of each."""
        width = self._numbers.shape[1]
        if width == 1:
            return torch.bincount(self._numbers.view(-1), minlength=self._d).to(self._dtype) / self.count
        row = torch.arange(self.count, device=self._numbers.device).unsqueeze(1)
        places, times = torch.unique(row * self._d + self._numbers, return_counts=True)
        squares = (times.to(self._dtype) / width).square()
        return squares.new_zeros(self._d).index_add_(0, places % self._d, squares) / self.count

    def sketch(self, basis: Tensor) -> Tensor:
        """Row by row of `basis`: ``E[a aᵀ] Ω`` needs no more than a gather and a scatter."""
        share = basis[self._numbers].mean(1) / (self._numbers.shape[1] * self.count)
        out = torch.zeros_like(basis)
        for column in self._numbers.unbind(1):
            out.index_add_(0, column, share)
        return out

    def reduced(self) -> "Tokens":
        """One row an example: the mean of its unit vectors. (``E[a aᵀ]`` is diagonal no more; its diagonal is kept.)"""
        return Tokens(self._numbers.reshape(self.examples, -1), self._d, dtype=self._dtype)

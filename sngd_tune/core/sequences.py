"""Batches of sequences, of one length or ragged: which rows belong together, and which state came before which step.

Rows come in the order of `torch.nn.utils.rnn.PackedSequence`: all first steps, then all second steps of the sequences
that have one, and so on, sequences by falling length. ``[steps, sequences, …]`` is the special case of one length.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sngd_tune.core.inputs import Inputs, Rows, with_bias_input

__all__ = ["RaggedRows", "Steps"]


class RaggedRows(Rows):
    """Rows of examples that have different numbers of positions.

    Args:
        a: ``[n, d]``, the positions of an example together.
        lengths: positions of each example, int64 ``[examples]``, their sum is ``n``.
    """

    def __init__(self, a: Tensor, lengths: Tensor):
        super().__init__(a, len(lengths))
        self._lengths = lengths

    def to(self, dtype: torch.dtype) -> "RaggedRows":
        rows = self.rows()
        return self if rows.dtype == dtype else RaggedRows(rows.to(dtype), self._lengths)

    def reduced(self) -> Inputs:
        """One row an example: the mean over its own positions."""
        rows, examples = self.rows(), torch.arange(self.examples, device=self._lengths.device)
        means = rows.new_zeros(self.examples, rows.shape[-1])
        means.index_add_(0, examples.repeat_interleave(self._lengths), rows)
        return Rows(means / self._lengths.unsqueeze(1))


class Steps:
    """The steps of a batch of sequences.

    Args:
        sizes: sequences that have each step, int64 ``[steps]``, falling, on the CPU: the ``batch_sizes`` of a
            `PackedSequence`.
        device: of the sequences.
    """

    def __init__(self, sizes: Tensor, device: torch.device):
        self._sizes = sizes
        self.sequences = int(sizes[0])
        sequence = torch.arange(self.sequences).unsqueeze(1)
        exists = sequence < sizes  # [sequences, steps]
        place = sequence + sizes.cumsum(0) - sizes
        # The state before a step is a row of `cat((h0, states))`.
        state = self.sequences + place
        earlier = torch.cat((sequence, state[:, :-1]), 1)
        later = torch.cat((torch.where(exists[:, 1:], state[:, 1:], sequence), sequence), 1)
        self._lengths = exists.sum(1).to(device)
        self._order = place[exists].to(device)
        self._before = {False: earlier[exists].to(device), True: later[exists].to(device)}
        self._even = self.sequences == 0 or int(sizes[-1]) == self.sequences

    def arranged(self, x: Tensor) -> Tensor | PackedSequence:
        """``x: [n, width]`` as recurrent modules take it: ``[steps, sequences, width]``, or packed."""
        return x.unflatten(0, (-1, self.sequences)) if self._even else PackedSequence(x, self._sizes)

    def spans(self, *, reverse: bool) -> Iterator[tuple[int, int]]:
        """First row of each step and how many there are, in the order of time or against it."""
        sizes = self._sizes.tolist()
        starts = (self._sizes.cumsum(0) - self._sizes).tolist()
        spans = list(zip(starts, sizes, strict=True))
        return reversed(spans) if reverse else iter(spans)

    def rows(self, x: Tensor, bias: bool) -> Rows:
        """``x: [n, d_in]``, sequence by sequence, with the bias's 1."""
        return self._rows(x, self._order, bias)

    def states_before(self, states: Tensor, first: Tensor, *, reverse: bool, bias: bool) -> Rows:
        """The state before each step, sequence by sequence.

        Args:
            states: after each step, ``[n, width]``.
            first: before all steps, ``[sequences, width]``.
            reverse: whether the last step comes first.
            bias: whether a final 1 is appended.
        """
        return self._rows(torch.cat((first.to(states.dtype), states)), self._before[reverse], bias)

    def _rows(self, x: Tensor, order: Tensor, bias: bool) -> Rows:
        a = with_bias_input(x.index_select(0, order), bias)
        return Rows(a, self.sequences) if self._even else RaggedRows(a, self._lengths)

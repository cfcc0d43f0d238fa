"""The order of the training examples: passes over all of them, one after another, each in a new random order."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sngd_tune.errors import ConfigurationError

__all__ = ["Batches"]


class Batches:
    """Batches of indices without end; the last one of a pass is smaller where the sizes do not divide.

    Several ranks divide each batch into equal consecutive parts, which the averages over ranks presuppose
    (`core.distributed`). So every batch has a multiple of `ranks`: of a pass that has not, the last few examples (fewer
    than there are ranks) are left out, others in each pass.

    Args:
        examples: how many there are.
        batch_size: of each batch but the last of a pass.
        seed: of the orders, which are the same on every device and rank.
        device: of the indices.
        ranks: processes that share each batch.
        rank: whose parts to take.

    Raises:
        ConfigurationError: `batch_size` is no multiple of `ranks`, or there are fewer examples than ranks.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        ranks: int = 1,
        rank: int = 0,
    ) -> None:
        if batch_size % ranks:
            raise ConfigurationError(
                f"batch_size={batch_size}: must be a multiple of search.resources.workers={ranks}, as all workers take"
                f" equal parts; try {-(-batch_size // ranks) * ranks}"
            )
        if examples < ranks:
            raise ConfigurationError(
                f"search.resources.workers={ranks}: must be ≤ the {examples} training examples; lower it"
            )
        self._examples, self._batch_size, self._device = examples, batch_size, device
        self._ranks, self._rank = ranks, rank
        self._generator = torch.Generator().manual_seed(seed)
        self._begun = self._generator.get_state()  # of the generator, before the pass under way
        self._pass: list[Tensor] = []
        self._taken = 0  # batches of that pass

    def take(self, count: int) -> Iterator[Tensor]:
        """The next `count` batches, or this rank's parts of them."""
        for _ in range(count):
            if self._taken == len(self._pass):
                self._shuffle()
            self._taken += 1
            yield self._pass[self._taken - 1].view(self._ranks, -1)[self._rank]

    @property
    def per_pass(self) -> int:
        """Batches of a pass."""
        return -(-self._taking // self._batch_size)

    @property
    def _taking(self) -> int:
        """Examples of a pass."""
        return self._examples - self._examples % self._ranks

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: `load_state_dict` of another one with the same arguments goes on from there."""
        return {"begun": self._begun, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._generator.set_state(state["begun"].cpu())
        self._shuffle()
        self._taken = state["taken"]

    def _shuffle(self) -> None:
        self._begun = self._generator.get_state()
        order = torch.randperm(self._examples, generator=self._generator).to(self._device)
        self._pass, self._taken = list(order[: self._taking].split(self._batch_size)), 0

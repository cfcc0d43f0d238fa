"""Data-parallel training: the ranks of a process group keep one ``G`` and one root for each layer.

``G`` is linear in the batches, so the average of what the ranks have seen *is* that of the joint batch (of rank
batches of one size, with a loss that is a mean over examples: output gradients are taken times the rank's own count).
It is averaged in every step that takes statistics, by one reduction for all layers: all ranks hold the same state
between steps, so one rank's checkpoint is complete, and the broadcast of buffers that `DistributedDataParallel` does
changes nothing. Roots are shared out: the ``i``-th layer that is due is computed by rank ``i mod world`` and
broadcast.

What would part the ranks is decided together: whether gradients are finite, and whether a root has failed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sngd_tune.core.local_fisher import LocalFisher, Stage
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.errors import ReconstructionError, RootError

__all__ = ["Advance", "Ranks", "advance_all", "unwrapped"]


class Ranks:
    """The processes that train one model together.

    Args:
        group: their process group. None: the default group where `torch.distributed` is initialized, else this process
            alone. A group of one rank keeps this process alone in any case.

    A copy shares the group; one that was pickled goes by the default group.

    Attributes:
        stopwatch: counts the exchanges with the other ranks, and the wait for a slower one, as ``communication``; None:
            nothing is measured.
    """

    def __init__(self, group: Any = None):
        self._group = group
        self.stopwatch: Stopwatch | None = None

    @property
    def size(self) -> int:
        """How many they are."""
        alone = not dist.is_available() or not dist.is_initialized()
        return 1 if alone else dist.get_world_size(self._group)

    @property
    def rank(self) -> int:
        """The place of this process among them; 0 where it is alone."""
        return 0 if self.size == 1 else dist.get_rank(self._group)

    def all_agree(self, holds: bool, device: torch.device) -> bool:
        """Whether it holds on every rank; `device` is one that the group's backend serves, here and below."""
        return bool(self.least([float(holds)], device)[0])

    def mean(self, value: float, device: torch.device) -> float:
        """The average of a number over the ranks."""
        return self.sum([value], device)[0] / self.size

    def sum(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sum of each number over the ranks."""
        return self._reduced(values, "SUM", device)

    def least(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The smallest of the ranks' numbers, for each number."""
        return self._reduced(values, "MIN", device)

    def largest(self, value: float, device: torch.device) -> float:
        """The largest of the ranks' numbers."""
        return self._reduced([value], "MAX", device)[0]

    def first(self, value: float, device: torch.device) -> float:
        """The number of rank 0, by which all go."""
        if self.size == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=device)
        self.broadcast([number], source=0)
        return float(number)

    def _reduced(self, values: Sequence[float], operation: str, device: torch.device) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        with self._timed():
            dist.all_reduce(numbers, getattr(dist.ReduceOp, operation), group=self._group)
        reduced: list[float] = numbers.tolist()
        return reduced

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Average in place, by one reduction for each precision and device."""
        if self.size == 1:
            return
        for each in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in each])
            with self._timed():
                dist.all_reduce(flat, group=self._group)
            flat /= self.size
            for tensor, part in zip(each, flat.split([tensor.numel() for tensor in each]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor], source: int) -> None:
        """Overwrite in place with those of rank `source`."""
        if self.size == 1:
            return
        origin = source if self._group is None else dist.get_global_rank(self._group, source)
        for each in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in each])
            with self._timed():
                dist.broadcast(flat, origin, group=self._group)
            for tensor, part in zip(each, flat.split([tensor.numel() for tensor in each]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def _timed(self) -> AbstractContextManager[None]:
        return self.stopwatch("communication") if self.stopwatch is not None else nullcontext()

    def __deepcopy__(self, memo: Any) -> "Ranks":
        return self

    def __reduce__(self) -> Any:
        return type(self), ()


def _alike(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    kinds: dict[Any, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        kinds[tensor.dtype, tensor.device].append(tensor)
    return kinds.values()


@dataclass(frozen=True)
class Advance:
    """What one optimizer step brought for the layers of a model.

    Attributes:
        warming: True while only statistics are collected: the parameters stay as they are.
        replaced: the root before, for each layer that this step refreshed (by its place among them): state in the
            coordinates of ``W′`` has to move along.
    """

    warming: bool
    replaced: dict[int, RootOperator]


def advance_all(fishers: Sequence[LocalFisher], ranks: Ranks) -> Advance:
    """`LocalFisher.advance` of every layer, together with the other ranks.

    Raises:
        NonFiniteError, RootError: as there, on all ranks.
    """
    warming = any(fisher.step < 0 for fisher in fishers)
    if ranks.size == 1:
        replaced = {i: root for i, fisher in enumerate(fishers) if (root := fisher.advance()) is not None}
        return Advance(warming, replaced)
    stages = [fisher.close() for fisher in fishers]
    taken = [fisher for fisher, stage in zip(fishers, stages, strict=True) if stage is not Stage.HELD]
    ranks.average(tensor for fisher in taken for tensor in fisher.averaged())
    due = {i: fisher for i, (fisher, stage) in enumerate(zip(fishers, stages, strict=True)) if stage is Stage.DUE}
    before = {i: fisher.root for i, fisher in due.items()}
    return Advance(warming, {i: before[i] for i in _refresh(due, ranks)})


def _refresh(due: Mapping[int, LocalFisher], ranks: Ranks) -> list[int]:
    """Compute this rank's share of the roots and exchange them; the numbers of the layers that have a new one."""
    plans = [(i, fisher, damping) for i, fisher in due.items() if (damping := fisher.plan()) is not None]
    if not plans:
        return []
    computed: dict[int, dict[str, Tensor]] = {}
    failed: dict[int, RootError] = {}
    for place, (i, fisher, damping) in enumerate(plans):
        if place % ranks.size == ranks.rank:
            try:
                computed[i] = fisher.compute(damping)
            except RootError as error:
                failed[i] = error
    good = ranks.least([float(i not in failed) for i, _, _ in plans], plans[0][2].device)
    refreshed = []
    for place, ((i, fisher, damping), held) in enumerate(zip(plans, good, strict=True)):
        source = place % ranks.size
        if not held:
            fisher.keep_last_root(failed.get(i, RootError(f"on rank {source}, which computes it")))
            continue
        blank, moved = fisher.blank()
        tensors = computed.get(i, blank)
        ranks.broadcast([*tensors.values(), *moved], source)
        fisher.install(tensors, damping)
        refreshed.append(i)
    return refreshed


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`, `DataParallel` and `torch.compile`, so that layers keep their names.

    Raises:
        ReconstructionError: its parameters are sharded.
    """
    while True:
        inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "placements"):
            raise ReconstructionError(
                f"{name}: its parameter is sharded (DTensor: fully_shard or tensor parallelism), and no rank sees a"
                " whole weight; use DistributedDataParallel"
            )
    return model


_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)

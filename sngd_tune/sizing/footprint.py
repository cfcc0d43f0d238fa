"""What a trial takes, found by training it for a moment."""

from dataclasses import dataclass

import torch

from sngd_tune.memory import PeakMemory
from sngd_tune.records.trial import TrialConfig
from sngd_tune.training import Training
from sngd_tune.workloads.workload import Split, Splits, Workload

__all__ = ["Footprint", "first_examples", "measure", "size_of"]


@dataclass(frozen=True)
class Footprint:
    """What a worker of a trial takes at its peak.

    Attributes:
        host: bytes of main memory, the process with its libraries included; the data, of which Ray's object store has
            one copy for all trials of a node, is left out.
        device: bytes of GPU memory, CUDA's own included; 0 on a CPU.
        capacity: bytes of the GPU that it was tried on; 0 on a CPU.
    """

    host: int
    device: int = 0
    capacity: int = 0


def measure(trial: TrialConfig, workload: Workload, splits: Splits) -> Footprint:
    """What a trial takes in this process, of which it must be the first.

    Args:
        trial: of `largest_trials`.
        workload: model and loss.
        splits: its data, or as much of it as it trains on.
    """
    training = Training(trial, workload, splits)
    while not training.finished:
        training.epoch()
    host = PeakMemory(torch.device("cpu")).read()
    if not torch.cuda.is_available():
        return Footprint(host)
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return Footprint(host, torch.cuda.max_memory_reserved() + beside, total)


def first_examples(splits: Splits, training: int, evaluation: int) -> Splits:
    """As many examples of the data as are trained on, and as are evaluated at once."""
    return Splits(
        _first(splits.train, training), _first(splits.validation, evaluation), _first(splits.test, evaluation)
    )


def size_of(splits: Splits) -> int:
    """Bytes of the data, which a GPU holds whole."""
    parts = splits.train, splits.validation, splits.test
    return sum(part.inputs.nbytes + part.targets.nbytes for part in parts)


def _first(part: Split, examples: int) -> Split:
    return Split(part.inputs[:examples].copy(), part.targets[:examples].copy())

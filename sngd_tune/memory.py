"""Peak memory of a stretch of work: the device's on a GPU, the process's resident set on a CPU."""

import resource
from pathlib import Path

import torch

__all__ = ["PeakMemory"]

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peak since the last `reset`, in bytes.

    On a CPU Linux can forget a process's peak; elsewhere the peak of the process's whole life is what there is.
    """

    def __init__(self, device: torch.device):
        self._device = device

    def reset(self) -> None:
        """Start anew."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif _CLEAR_REFS.exists():
            try:
                _CLEAR_REFS.write_text("5")
            except OSError:
                return  # not allowed in this container: the lifetime's peak stays

    def read(self) -> int:
        """The peak in bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if _STATUS.exists():
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""GPUs as NVIDIA's driver sees them (NVML), what a trial that shares one does about its memory, and their energy.

Ray gives out shares of a GPU by counting; it neither knows nor enforces memory. So a trial waits until its share is
free, since the memory of a process that was killed comes back seconds later, or never, where a child of it lives on
(https://github.com/ray-project/ray/issues/32725); and torch's allocator takes no more than the share, so that the trial
runs out of memory itself instead of pushing a neighbour out. `ray.tune.utils.wait_for_gpu` waits for an idle GPU, which
a shared one never is.

NVML is asked through ``nvidia-ml-py`` (extra ``gpu``). Without it, or without a GPU, there is nothing to see and nobody
waits. None of this has run on a GPU yet.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.errors import GpuMemoryError

__all__ = [
    "CONTEXT_BYTES",
    "Gpu",
    "GpuProcess",
    "energy_counter",
    "gpu_gauges",
    "limit_memory",
    "read_gpus",
    "wait_for_memory",
]

#: What a process takes on a GPU beside what torch's allocator holds: CUDA's context and the kernels of its libraries.
CONTEXT_BYTES = 500_000_000

_GB, _MEGA = 1e9, 1e6
_MILLI = 1000.0
#: How much of its share a trial must find: drivers keep some of a GPU for themselves.
_LEAST = 0.9
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU, by the number that the driver's own system knows it by.

    Attributes:
        pid: process id.
        used: bytes; None where the driver does not say.
    """

    pid: int
    used: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU at one moment.

    Attributes:
        index: in the order of the bus.
        uuid: ``GPU-…``.
        name: of the model.
        total: bytes of memory.
        free: bytes of it.
        processes: that compute on it.
        uncorrected: ECC errors that could not be corrected, since the driver was loaded; None where there is no ECC.
        slowed: whether heat or power slow its clock down now.
    """

    index: int
    uuid: str
    name: str
    total: int
    free: int
    processes: tuple[GpuProcess, ...] = ()
    uncorrected: int | None = None
    slowed: bool = False


def read_gpus() -> list[Gpu]:
    """All GPUs of this machine; none where NVML, its package or a GPU is missing."""
    try:
        import pynvml as nvml
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def energy_counter(uuid: str) -> Callable[[], float] | None:
    """Reads what a GPU has used since its driver was loaded (J); it raises OSError once NVML has lost the GPU.

    NVML stays open for the life of the process: to open it takes milliseconds, to read takes microseconds.

    Args:
        uuid: ``GPU-…``; a MIG instance's is none of a GPU's, since only the whole board has a counter.

    Returns:
        None where NVML, its package, the GPU or its counter (Volta and later) is missing.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return None

    def read() -> float:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / _MILLI
        except nvml.NVMLError as error:
            raise OSError(f"{uuid}: no energy from NVML ({error})") from error

    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        read()
    except (nvml.NVMLError, OSError):
        return None
    return read


def gpu_gauges() -> Callable[[], dict[str, float]]:
    """Reads how busy the GPUs are that this process may use, under the names of MLflow's system metrics.

    NVML stays open for the life of the process, as for `energy_counter`.

    Returns:
        a reader; it finds nothing where NVML, its package or a GPU is missing, and leaves out what a GPU does not say.
    """
    found = _visible(read_gpus())
    if not found:
        return dict
    import pynvml as nvml

    nvml.nvmlInit()
    handles = {gpu.index: nvml.nvmlDeviceGetHandleByIndex(gpu.index) for gpu in found}
    return lambda: {
        f"gpu_{index}_{name}": value for index, handle in handles.items() for name, value in _gauges(nvml, handle)
    }


def _gauges(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    memory = _supported(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is not None:
        yield "memory_usage_megabytes", memory.used / _MEGA
        yield "memory_usage_percentage", 100 * memory.used / memory.total
    rates = _supported(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    if rates is not None:
        yield "utilization_percentage", float(rates.gpu)
    power = _supported(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    limit = _supported(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    if power is not None:
        yield "power_usage_watts", power / _MILLI
    if power is not None and limit:
        yield "power_usage_percentage", 100 * power / limit


def wait_for_memory(share: float, seconds: float, read: Callable[[], Sequence[Gpu]] = read_gpus) -> None:
    """Wait until this process has its share of memory on each GPU that it may use.

    Args:
        share: of a GPU, > 0; from 1 on all of it. What this process holds already counts as free.
        seconds: to wait at most, ≥ 0.
        read: where the figures come from.

    Raises:
        GpuMemoryError: the time is over; it names who holds the memory. The trial is not to blame.
    """
    end = time.monotonic() + seconds
    while (short := next((gpu for gpu in _visible(read()) if _left(gpu) < _needed(gpu, share)), None)) is not None:
        if time.monotonic() >= end:
            raise GpuMemoryError(_refusal(short, _needed(short, share), seconds))
        time.sleep(_LOOK_SECONDS)


def limit_memory(share: float) -> None:
    """Let torch's allocator take no more than this process's share of its GPU, less what CUDA itself takes.

    Args:
        share: of one GPU, in (0, 1]; from 1 on, and without a GPU, nothing is limited.
    """
    import torch

    if share < 1 and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share / 2, share - CONTEXT_BYTES / total))


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    running = _supported(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    reasons = _supported(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        total=memory.total,
        free=memory.free,
        processes=tuple(GpuProcess(process.pid, process.usedGpuMemory) for process in running),
        uncorrected=_supported(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, *kinds),
        slowed=bool(reasons & (nvml.nvmlClocksEventReasonHwSlowdown | nvml.nvmlClocksEventReasonSwThermalSlowdown)),
    )


def _supported(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of NVML; None where this GPU or driver does not give it."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _needed(gpu: Gpu, share: float) -> int:
    return int(_LEAST * min(share, 1.0) * gpu.total)


def _left(gpu: Gpu) -> int:
    """Bytes for this process: free ones, and its own."""
    return gpu.free + sum(process.used or 0 for process in gpu.processes if process.pid == os.getpid())


def _visible(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those that ``CUDA_VISIBLE_DEVICES`` names, by number or (the beginning of) the UUID; all where it is not set."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(gpus)
    wanted = [word.strip() for word in named.split(",") if word.strip()]
    return [gpu for gpu in gpus if any(word == str(gpu.index) or gpu.uuid.startswith(word) for word in wanted)]


def _refusal(gpu: Gpu, needed: int, seconds: float) -> str:
    holders = ", ".join(_who(process) for process in gpu.processes if process.pid != os.getpid())
    return (
        f"GPU {gpu.index} ({gpu.name}): {gpu.free / _GB:.1f} of {gpu.total / _GB:.1f} GB are free after {seconds:g} s,"
        f" and the trial's share is {needed / _GB:.1f} GB; held by {holders or 'nobody that the driver names'}; end"
        " what should not run there"
    )


def _who(process: GpuProcess) -> str:
    used = "" if process.used is None else f", {process.used / _GB:.1f} GB"
    try:
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        name = "dead, or outside this container"
    return f"PID {process.pid} ({name}{used})"

"""`Machine`: what a study ran on."""

import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "processor_name"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that began a study; on a cluster, the one of its driver.

    Attributes:
        cpu: model name of the processor.
        cores: logical ones that the process may use.
        memory_bytes: physical memory.
        gpus: name of each GPU; empty without one.
        system: operating system with its version.
    """

    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    system: str


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name that Linux gives the first processor; elsewhere, and on machines that do not say (ARM), their kind."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()

"""`Machine`: what a study ran on."""

from dataclasses import dataclass

__all__ = ["Machine"]


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

"""How a trial ended, as a value; a trial that did not end well can never rank."""

from enum import StrEnum

__all__ = ["Outcome"]


class Outcome(StrEnum):
    """State of a trial. Only `COMPLETED` ranks; only `LOST` is retried unchanged."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"  # by the scheduler or the time limit, after at least one epoch
    DIVERGED = "diverged"  # a loss, a gradient or a Fisher matrix became NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"  # the workload or the configuration raised
    LOST = "lost"  # its process or node died
    INTERRUPTED = "interrupted"  # the study was stopped while it ran; `resume` runs it again

    @property
    def finished(self) -> bool:
        """True where `resume` has nothing left to do for the trial."""
        return self not in (Outcome.RUNNING, Outcome.INTERRUPTED)

    @property
    def failed(self) -> bool:
        """True where the objective says nothing: Optuna is told FAIL."""
        return self in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.ERROR, Outcome.LOST)

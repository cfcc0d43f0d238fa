"""How a trial ended, as a value; a trial that did not end well can never rank."""

from enum import StrEnum

__all__ = ["Outcome"]


class Outcome(StrEnum):
    """State of a trial. Only `COMPLETED` ranks; which ones run again is said in `search.retries`."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"  # by the scheduler or the time limit, after at least one epoch
    DIVERGED = "diverged"  # a loss, a gradient or a Fisher matrix became NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"  # the workload or the configuration raised
    LOST = "lost"  # its process or node died
    PREEMPTED = "preempted"  # it left a node that was to be taken away; it runs again elsewhere
    INTERRUPTED = "interrupted"  # the study was stopped while it ran; `resume` runs it again

    @property
    def finished(self) -> bool:
        """True where `resume` has nothing left to do for the trial."""
        return self not in (Outcome.RUNNING, Outcome.PREEMPTED, Outcome.INTERRUPTED)

    @property
    def failed(self) -> bool:
        """True where the objective says nothing: Optuna is told FAIL."""
        return self in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.ERROR, Outcome.LOST)

"""`Clock`: where a layer stands in its schedule. Plain numbers, apart from the module that holds the tensors.

Most steps ask nothing of a layer. They cost it one call and one comparison: the next step that does is known.
"""

from itertools import count

from sngd_tune.core.schedule import Offset, refresh_due, statistics_due
from sngd_tune.settings import FisherSettings

__all__ = ["Clock"]


class Clock:
    """Counts the calls of an optimizer's step.

    Args:
        settings: the intervals.
        offset: where in them the regular steps lie.

    Attributes:
        calls: so far.
        observing: whether the batch of the coming step enters ``G``.
    """

    def __init__(self, settings: FisherSettings, offset: Offset):
        self._settings, self._offset = settings, offset
        self.set(0)

    @property
    def step(self) -> int:
        """The coming optimizer step; negative during the warm-up."""
        return self.calls - self._settings.warmup_batches

    def set(self, calls: int) -> None:
        """Go to where so many calls lead."""
        self.calls = calls
        self._next = next(step for step in count(self.step) if statistics_due(step, self._settings, self._offset))
        self.observing = self._next == self.step

    def tick(self) -> None:
        """A step has passed."""
        if self.observing:
            self.set(self.calls + 1)
        else:
            self.calls += 1
            self.observing = self.step == self._next

    def refresh_due(self, step: int) -> bool:
        """Whether `step` refreshes the root before it moves the parameters."""
        return refresh_due(step, self._settings, self._offset)

"""When statistics are taken and roots refreshed: pure functions of the step, so that a resumed run needs no memory.

Steps count optimizer steps from 0, the statistics-only batches at the start not included (they have negative steps).
"""

from sngd_tune.settings import FisherSettings

__all__ = ["refresh_due", "statistics_due"]


def refresh_due(step: int, settings: FisherSettings) -> bool:
    """Whether the root is refreshed before the parameter update of `step`.

    Always at step 0 and every ``fisher_interval`` steps; ``"thinning"`` adds the steps 1, 3, 7, 15, … up to there.
    """
    if step < 0:
        return False
    if step % settings.fisher_interval == 0:
        return True
    early = settings.refresh_schedule == "thinning" and step < settings.fisher_interval
    return early and (step + 1) & step == 0


def statistics_due(step: int, settings: FisherSettings) -> bool:
    """Whether the batch of `step` enters ``G``: in the warm-up, at refreshes, every ``statistics_interval`` steps."""
    return step < 0 or step % settings.statistics_interval == 0 or refresh_due(step, settings)

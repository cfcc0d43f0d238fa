"""Deaths of trials that Tune does not take for such (Ray 2.60).

Where Ray's memory monitor kills a trial, the call that was under way fails with `ray.exceptions.OutOfMemoryError`;
where a node dies with a result that nobody has fetched yet, with `ObjectLostError`. Neither is an actor's error, for
which alone Tune is prepared: it raises "Caught unexpected exception" out of `Tuner.fit`, and the search is over.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["lost_calls_are_deaths"]


@contextmanager
def lost_calls_are_deaths() -> Iterator[None]:
    """For the time of the block, Tune takes each trial whose call Ray lost for one whose process died.

    The error keeps Ray's message, by which it is known as what it is.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import RayActorError, RayError, RayTaskError

    manager: Any = RayActorManager
    handle = manager._actor_task_failed

    def handle_any(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        handle(self, tracked_actor_task=tracked_actor_task, exception=exception)

    manager._actor_task_failed = handle_any
    try:
        yield
    finally:
        manager._actor_task_failed = handle

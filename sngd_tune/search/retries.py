"""Which trials run again, by the class of their failure, and the searcher that proposes them again.

=====================  ===============================================================================
how an attempt ended   what follows
=====================  ===============================================================================
lost                   its process or node died: again from the newest checkpoint, ``max_retries`` times
preempted              it left a node that goes: again, and not counted
out of memory          final: the same settings would need as much memory again
error, diverged        final: the workload or the mathematics said so
=====================  ===============================================================================

Tune's own retries (``FailureConfig``) know no classes: they would try a trial that ran out of memory again unchanged.
"""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from sngd_tune.records.outcome import Outcome

__all__ = ["RetryingSearcher"]


class RetryingSearcher(Searcher):
    """Proposes what a subclass has to propose, and before that the trials that were lost.

    Tune may save it as often as it likes: there is nothing to keep, as the ledger holds the trials.

    Args:
        max_retries: of a trial that was lost.
    """

    def __init__(self, max_retries: int) -> None:
        super().__init__()
        self._max_retries = max_retries
        self._running: dict[str, dict[str, Any]] = {}  # by Tune's id of the attempt
        self._again: deque[dict[str, Any]] = deque()
        self._losses: Counter[str] = Counter()

    def propose(self) -> dict[str, Any] | None:
        """The next Tune config; None where there is none any more."""
        raise NotImplementedError

    def observe(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """A result of a trial that runs; a retried one may repeat epochs."""

    def conclude(self, config: Mapping[str, Any], outcome: Outcome, result: Mapping[str, Any]) -> None:
        """The end of a trial: its outcome, and its last result, empty where it had none."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a word
        """A config; None while there is none, but a trial that runs might be lost; then `Searcher.FINISHED`."""
        config = self._again.popleft() if self._again else self.propose()
        if config is None:
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = dict(config)
        return config

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """One epoch or several."""
        if trial_id in self._running:
            config = self._running[trial_id]
            config["epochs_known"] = result.get("epoch", 0)
            self.observe(config, result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial. Of a failure Tune says no more here; `on_trial_failed` follows."""
        if error or trial_id not in self._running:
            return
        result = result or {}
        self.on_trial_result(trial_id, result)
        config = self._running.pop(trial_id)
        self.conclude(config, Outcome(result.get("outcome", Outcome.RUNNING)), result)

    def on_trial_failed(self, trial_id: str, outcome: Outcome) -> bool:
        """Whether a trial whose process failed will run again; the others are concluded."""
        config = self._running.pop(trial_id, None)
        if config is None:
            return False
        if self._runs_again(config["trial"], outcome):
            self._again.append({**config, "attempt": config["attempt"] + 1, "resume": True})
            return True
        self.conclude(config, outcome, {})
        return False

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Metric and mode come from the study; what Tune was given is the same or nothing."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds the trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed study begins with the ledger's trials."""

    def _runs_again(self, trial: str, outcome: Outcome) -> bool:
        if outcome is Outcome.LOST:
            self._losses[trial] += 1
            return self._losses[trial] <= self._max_retries
        return outcome is Outcome.PREEMPTED

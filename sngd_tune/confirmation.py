"""What is trained again after a search, on seeds it has not seen: each candidate on the same ones."""

from collections.abc import Iterable, Mapping
from typing import Any

from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.seeds import derive_seed

__all__ = ["confirmations"]


def confirmations(
    config: StudyConfig, candidates: Mapping[str, Mapping[str, Any]], seeds: int, past: Iterable[TrialRecord]
) -> list[dict[str, Any]]:
    """Tune configs of the confirmations that are still to run.

    The seeds are the same for all candidates, and for all studies of one seed, so that they can be compared in pairs.

    Args:
        config: the study.
        candidates: flat parameters by name.
        seeds: how many.
        past: what the ledger has; finished confirmations of the same parameters are not repeated.
    """
    done = {record.trial: record for record in past if record.phase == "confirm"}
    wanted = []
    for candidate, parameters in candidates.items():
        for i in range(seeds):
            trial = f"confirm-{candidate}-{i}"
            before = done.get(trial)
            same = before is not None and dict(before.parameters) == dict(parameters)
            if before is None or not (same and before.outcome.finished):
                wanted.append(_config(config, trial, candidate, i, parameters) | _progress(before, same))
    return wanted


def _config(study: StudyConfig, trial: str, candidate: str, i: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "study": study.name,
        "trial": trial,
        "number": i,
        "phase": "confirm",
        "candidate": candidate,
        "parameters": dict(parameters),
        "seed": derive_seed(study.search.seed, "confirm", i),
    }


def _progress(before: TrialRecord | None, same: bool) -> dict[str, Any]:
    """Where it stands; a training of other parameters, of a winner of before, is nothing to go on from."""
    if before is None:
        return {"attempt": 0, "resume": False, "epochs_known": 0}
    return {"attempt": before.attempt + 1, "resume": same, "epochs_known": before.epochs if same else 0}

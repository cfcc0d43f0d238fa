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
    wanted = [
        _config(config, candidate, i, parameters) for candidate, parameters in candidates.items() for i in range(seeds)
    ]
    return [entry for entry in wanted if not _finished(done.get(entry["trial"]), entry["parameters"])]


def _config(study: StudyConfig, candidate: str, i: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "study": study.name,
        "trial": f"confirm-{candidate}-{i}",
        "number": i,
        "phase": "confirm",
        "candidate": candidate,
        "parameters": dict(parameters),
        "seed": derive_seed(study.search.seed, "confirm", i),
        "resume_from": None,
    }


def _finished(record: TrialRecord | None, parameters: Mapping[str, Any]) -> bool:
    return record is not None and record.outcome.finished and dict(record.parameters) == dict(parameters)

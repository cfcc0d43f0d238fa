"""What is trained again after a search, on seeds it has not seen: its winner, and the untuned default beside it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.seeds import derive_seed
from sngd_tune.search.space import SearchSpace

__all__ = ["confirmations"]


def confirmations(config: StudyConfig, best: TrialRecord, past: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """Tune configs of the confirmations that are still to run.

    The seeds are the same for both candidates, so that they can be compared in pairs.

    Args:
        config: the study.
        best: the winner of the search.
        past: what the ledger has; finished confirmations of the same parameters are not repeated.
    """
    candidates: dict[str, Mapping[str, Any]] = {"best": best.parameters}
    if config.confirm.baseline:
        candidates["default"] = SearchSpace(config).defaults()
    done = {record.trial: record for record in past if record.phase == "confirm"}
    wanted = [
        _config(candidate, i, parameters, derive_seed(config.search.seed, "confirm", i))
        for candidate, parameters in candidates.items()
        for i in range(config.confirm.seeds)
    ]
    return [entry for entry in wanted if not _finished(done.get(entry["trial"]), entry["parameters"])]


def _config(candidate: str, i: int, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {
        "trial": f"confirm-{candidate}-{i}",
        "number": i,
        "phase": "confirm",
        "candidate": candidate,
        "parameters": dict(parameters),
        "seed": seed,
        "resume_from": None,
    }


def _finished(record: TrialRecord | None, parameters: Mapping[str, Any]) -> bool:
    return record is not None and record.outcome.finished and dict(record.parameters) == dict(parameters)

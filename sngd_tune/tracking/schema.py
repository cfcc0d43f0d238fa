"""The Arrow schemas of the ledger, derived from the records so that neither can drift from the other."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["EPOCHS", "LEDGER_VERSION", "TRIALS", "epoch_row", "metrics_of", "record_of", "trial_row"]

#: Version of the ledger's files. A ledger of another version is refused, never guessed at.
LEDGER_VERSION = 1

#: What of a record stands beside each epoch, so that the epochs can be read without a join.
_IDENTITY = ("study", "workload", "trial", "number", "phase", "candidate", "attempt", "seed")

_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), Outcome: pa.string()}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """The Arrow type of an annotation, and whether it may be null."""
    if typing.get_origin(annotation) is types.UnionType:
        (inner,) = (argument for argument in typing.get_args(annotation) if argument is not types.NoneType)
        return _arrow_type(inner)[0], True
    if annotation == tuple[LayerDiagnostics, ...]:
        return pa.list_(pa.field("item", pa.struct(_fields(LayerDiagnostics)), nullable=False)), False
    if annotation == Mapping[str, Any]:
        return pa.string(), False  # parameters: ragged by nature, hence JSON
    if annotation in (Mapping[str, float], Mapping[str, float | None]):
        return pa.map_(pa.string(), pa.float64()), False  # objectives: a map keeps NaN and infinity, JSON does not
    return _ARROW[annotation], False


def _fields(record: type, names: tuple[str, ...] | None = None) -> list[pa.Field]:
    annotations = typing.get_type_hints(record)
    fields = []
    for field in dataclasses.fields(record):
        if names is None or field.name in names:
            arrow, nullable = _arrow_type(annotations[field.name])
            metadata = {key: str(value) for key, value in field.metadata.items()}
            fields.append(pa.field(field.name, arrow, nullable=nullable, metadata=metadata or None))
    return fields


_METADATA = {"sngd_tune.ledger_version": str(LEDGER_VERSION)}
_TIME = pa.field("time", pa.float64(), nullable=False, metadata={"unit": "s", "doc": "UTC, Unix: the result arrived"})

#: One row per state of a trial.
TRIALS = pa.schema(_fields(TrialRecord), metadata=_METADATA)
#: One row per finished epoch of an attempt.
EPOCHS = pa.schema([*_fields(TrialRecord, _IDENTITY), _TIME, *_fields(EpochMetrics)], metadata=_METADATA)


def trial_row(record: TrialRecord) -> dict[str, Any]:
    """A row of `TRIALS`."""
    parameters = json.dumps(dict(record.parameters), ensure_ascii=False)
    return {**record.to_dict(), "parameters": parameters, "objectives": list(record.objectives.items())}


def record_of(row: Mapping[str, Any]) -> TrialRecord:
    """Inverse of `trial_row`."""
    return TrialRecord.from_dict(
        {**row, "parameters": json.loads(row["parameters"]), "objectives": dict(row["objectives"])}
    )


def epoch_row(record: TrialRecord, metrics: EpochMetrics, time: float) -> dict[str, Any]:
    """A row of `EPOCHS`."""
    return {
        **{name: getattr(record, name) for name in _IDENTITY},
        "time": time,
        **metrics.to_dict(),
        "system": list(metrics.system.items()),
    }


def metrics_of(row: Mapping[str, Any]) -> EpochMetrics:
    """The measurements of a row of `EPOCHS`; what was measured first after its file was written has its default."""
    values = {field.name: row[field.name] for field in dataclasses.fields(EpochMetrics)}
    return EpochMetrics.from_dict({name: value for name, value in values.items() if value is not None})

"""Files against their schema: every error with its file, line and path, as value, rule and remedy."""

import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import nearest
from sngd_tune.records.study import SCHEMA_VERSION
from sngd_tune.search.checks import Problem
from sngd_tune.search.document import Document, dotted

__all__ = ["check_version", "read_text", "refuse", "validated"]

Model = TypeVar("Model", bound=BaseModel)


def read_text(path: str | Path) -> str:
    """The text of a file. Raises ConfigurationError where it cannot be read as UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: not readable as UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{path}: cannot be read: {reason}") from error


def check_version(document: Document, kind: str) -> None:
    """Refuse another version: its keys mean nothing here, so nothing else is said about such a file.

    Args:
        document: the file.
        kind: what it should be, such as ``"a study"``.

    Raises:
        ConfigurationError: it is no mapping, or of no version or another one.
    """
    data = document.data
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds {type(data).__name__} {data!r:.40}"
        raise ConfigurationError(
            f"{document.source}:1: {found}; {kind} is a mapping that begins with `schema: {SCHEMA_VERSION}`"
        )
    if "schema" not in data:
        raise ConfigurationError(f"{document.source}:1: schema: is missing; add the line `schema: {SCHEMA_VERSION}`")
    version = data["schema"]
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{document.place(('schema',))}: schema: {version!r}: this sngd_tune reads version {SCHEMA_VERSION}; "
            "rewrite the file for it, or use the sngd_tune that the file was written for"
        )


def validated(document: Document, model: type[Model]) -> Model | list[Problem]:
    """The document as a value of its model, or all that its schema does not allow."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        return list(_schema_problems(model, error))


def refuse(document: Document, problems: Iterable[Problem]) -> NoReturn:
    """Raise a ConfigurationError with one line for each problem, in the order of the file."""
    lines = dict.fromkeys(_line(document, problem) for problem in problems)
    raise ConfigurationError("\n".join(sorted(lines, key=_by_line)))


def _line(document: Document, problem: Problem) -> str:
    path = _written_path(document.data, problem.path)
    where = f"{document.place(path)}: {dotted(path)}" if path else document.place(path)
    return f"{where}: {problem.message}{document.changed_below(path)}"


def _by_line(text: str) -> tuple[int, int]:
    """File order, overrides last."""
    number = text.split(": ", 1)[0].rpartition(":")[2]
    return (0, int(number)) if number.isdecimal() else (1, 0)


def _written_path(data: Any, path: Sequence[str | int]) -> tuple[str | int, ...]:
    """The path as the file spells it: an entry that stands alone has no index there, and pydantic adds marks."""
    written: list[str | int] = []
    for part in path:
        if isinstance(data, dict):
            if part not in data and (isinstance(part, int) or part.startswith("[")):
                continue
            written.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            written.append(part)
            data = data[part] if 0 <= part < len(data) else None
    return tuple(written)


def _schema_problems(model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    for details in error.errors():
        yield Problem(details["loc"], _message(model, details))


def _message(model: type[BaseModel], details: ErrorDetails) -> str:
    """What pydantic found, as value, rule and remedy."""
    kind, loc, value = details["type"], details["loc"], details["input"]
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if kind == "model_type":
        return f"{value!r:.60}: must be a mapping of keys"
    if kind == "invalid_key" or loc[-1:] == ("[key]",):
        return "keys must be words"
    rule = details["msg"].removeprefix("Value error, ")
    rule = rule.replace("Input should be", "must be").replace("Input should have", "must have")
    return f"{value!r:.60}: {rule[:1].lower()}{rule[1:]}" if loc else rule


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys that the schema knows at a place."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = _model_in(field.annotation) or model if field is not None else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``X | None`` or ``dict[str, tuple[X, ...]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)

"""Study files: YAML to a checked `StudyConfig`, every error with its file, line and path, all of them at once."""

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import PARAMETERS, nearest
from sngd_tune.records.study import SCHEMA_VERSION, SpaceEntry, StudyConfig
from sngd_tune.search.checks import Problem, find_problems, value_problems
from sngd_tune.search.document import Document, dotted, read_document

__all__ = ["load_study", "parse_study"]


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study that a YAML file describes, with overrides such as ``search.trials=8`` or ``space.lr.0.high=0.5``.

    Raises:
        ConfigurationError: the file cannot be read, or breaks a rule. Each line of the message reads
            ``file:line: dotted.path: what is wrong``; what an override broke is placed at ``--set …`` instead.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: not readable as UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{path}: cannot be read: {reason}") from error
    return parse_study(text, str(path), overrides)


def parse_study(text: str, source: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study in a YAML text; `source` names it in messages. As `load_study` otherwise."""
    document = read_document(text, source, overrides)
    _check_version(document)
    try:
        config = StudyConfig.model_validate(document.data)
    except ValidationError as error:
        problems = [*_schema_problems(document, error), *_entry_problems(document)]
    else:
        problems = find_problems(config)
        if not problems:
            return config
    lines = dict.fromkeys(_line(document, problem) for problem in problems)
    raise ConfigurationError("\n".join(sorted(lines, key=_by_line)))


def _check_version(document: Document) -> None:
    """Another version's keys mean nothing here, so nothing else is said about such a file."""
    data = document.data
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds {type(data).__name__} {data!r:.40}"
        raise ConfigurationError(
            f"{document.source}:1: {found}; a study is a mapping that begins with `schema: {SCHEMA_VERSION}`"
        )
    if "schema" not in data:
        raise ConfigurationError(f"{document.source}:1: schema: is missing; add the line `schema: {SCHEMA_VERSION}`")
    version = data["schema"]
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{document.place(('schema',))}: schema: {version!r}: this sngd_tune reads version {SCHEMA_VERSION}; "
            "rewrite the file for it, or use the sngd_tune that the file was written for"
        )


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


def _schema_problems(document: Document, error: ValidationError) -> Iterator[Problem]:
    for details in error.errors():
        yield Problem(details["loc"], _message(details))


def _message(details: ErrorDetails) -> str:
    """What pydantic found, as value, rule and remedy."""
    kind, loc, value = details["type"], details["loc"], details["input"]
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(loc[-1]), _keys_at(loc[:-1]))}"
    if kind == "model_type":
        return f"{value!r:.60}: must be a mapping of keys"
    if kind == "invalid_key" or loc[-1:] == ("[key]",):
        return "keys must be words"
    rule = details["msg"].removeprefix("Value error, ")
    rule = rule.replace("Input should be", "must be").replace("Input should have", "must have")
    return f"{value!r:.60}: {rule[:1].lower()}{rule[1:]}" if loc else rule


def _keys_at(loc: Sequence[str | int]) -> list[str]:
    """The keys that the schema knows at a place."""
    model: type[BaseModel] = StudyConfig
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = _model_in(field.annotation) or model if field is not None else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``X | None`` or ``dict[str, tuple[X, ...]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)


def _entry_problems(document: Document) -> Iterator[Problem]:
    """Rules of single entries, so that one wrong type elsewhere does not hide them."""
    space, fixed = _named(document.data.get("space")), _named(document.data.get("fixed"))
    for name, raw in space.items():
        for index, item in enumerate(raw if isinstance(raw, list) else [raw]):
            entry = _entry(item)
            if entry is not None:
                found = value_problems({name: [entry]}, {})
                yield from (Problem(("space", name, index), problem.message) for problem in found)
            elif name not in PARAMETERS:
                yield Problem(("space", name), f"not a parameter{nearest(name, PARAMETERS)}")
    scalars = {name: value for name, value in fixed.items() if isinstance(value, bool | int | float | str)}
    yield from value_problems({}, scalars)


def _named(value: Any) -> dict[str, Any]:
    """The entries of a mapping whose keys are words; nothing of anything else, which the schema reports."""
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}


def _entry(item: Any) -> SpaceEntry | None:
    try:
        return SpaceEntry.model_validate(item)
    except ValidationError:
        return None

"""Study files: YAML to a checked `StudyConfig`, every error with its file, line and path, all of them at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import parameter
from sngd_tune.records.study import SpaceEntry, StudyConfig
from sngd_tune.search.checks import Problem, find_problems, value_problems
from sngd_tune.search.document import Document, read_document
from sngd_tune.search.schema import check_version, read_text, refuse, validated

__all__ = ["check_study", "load_study", "parse_study"]


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study that a YAML file describes, with overrides such as ``search.trials=8`` or ``space.lr.0.high=0.5``.

    Raises:
        ConfigurationError: the file cannot be read, or breaks a rule. Each line of the message reads
            ``file:line: dotted.path: what is wrong``; what an override broke is placed at ``--set …`` instead.
    """
    return parse_study(read_text(path), str(path), overrides)


def parse_study(text: str, source: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study in a YAML text; `source` names it in messages. As `load_study` otherwise."""
    document = read_document(text, source, overrides)
    check_version(document, "a study")
    return check_study(document)


def check_study(document: Document) -> StudyConfig:
    """The study in a document whose version is right. Raises ConfigurationError with all that is wrong."""
    config = validated(document, StudyConfig)
    if isinstance(config, list):
        refuse(document, [*config, *_entry_problems(document)])
    problems = find_problems(config)
    if problems:
        refuse(document, problems)
    return config


def _entry_problems(document: Document) -> Iterator[Problem]:
    """Rules of single entries, so that one wrong type elsewhere does not hide them."""
    space, fixed = _named(document.data.get("space")), _named(document.data.get("fixed"))
    for name, raw in space.items():
        for index, item in enumerate(raw if isinstance(raw, list) else [raw]):
            entry = _entry(item)
            if entry is not None:
                found = value_problems({name: [entry]}, {})
                yield from (Problem(("space", name, index), problem.message) for problem in found)
            else:
                yield from _name_problems(name)
    scalars = {name: value for name, value in fixed.items() if isinstance(value, bool | int | float | str)}
    yield from value_problems({}, scalars)


def _name_problems(name: str) -> Iterator[Problem]:
    try:
        parameter(name)
    except ConfigurationError as error:
        yield Problem(("space", name), str(error).removeprefix(f"{name!r}: "))


def _named(value: Any) -> dict[str, Any]:
    """The entries of a mapping whose keys are words; nothing of anything else, which the schema reports."""
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}


def _entry(item: Any) -> SpaceEntry | None:
    try:
        return SpaceEntry.model_validate(item)
    except ValidationError:
        return None

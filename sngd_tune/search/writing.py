"""A study as a file: the YAML that `search.load` reads back as the same study."""

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from sngd_tune.atomic import replacing
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import StudyConfig

__all__ = ["study_text", "write_study"]

_WIDTH = 120


def write_study(study: StudyConfig, path: Path, comments: Iterable[str] = ()) -> None:
    """Write a study as YAML, whole or not at all.

    Args:
        study: sound, or `search.load.load_study` will refuse the file.
        path: in a directory that exists; an older file there is replaced.
        comments: paragraphs for the top of the file.

    Raises:
        ConfigurationError: it cannot be written; what was there before is as it was.
    """
    try:
        with replacing(path) as file:
            file.write(study_text(study, comments).encode())
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be written ({error.strerror or error}); choose another path"
        ) from error


def study_text(study: StudyConfig, comments: Iterable[str] = ()) -> str:
    """The YAML of a study: what differs from the defaults, under comments."""
    values = study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values["space"] = {name: found[0] if len(found) == 1 else found for name, found in values["space"].items()}
    lines = [line for comment in comments for line in _commented(comment)]
    return "".join(f"{line}\n" for line in lines) + "".join(_dumped(key, value) for key, value in values.items())


def _commented(text: str) -> Iterator[str]:
    """A paragraph as comments; YAML refuses control characters even there."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    lines = textwrap.wrap(printable, _WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)
    yield from (f"# {line}".rstrip() for line in lines or [""])


def _dumped(key: str, value: Any) -> str:
    """A part of the file: ranges and points on one line each, the rest one value a line."""
    style = None if isinstance(value, dict | list) and key != "fixed" else False
    return yaml.safe_dump({key: value}, sort_keys=False, width=_WIDTH, allow_unicode=True, default_flow_style=style)

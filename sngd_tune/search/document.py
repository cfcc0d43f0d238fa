"""A YAML text as plain values, together with the line on which each of them stands."""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from sngd_tune.errors import ConfigurationError
from sngd_tune.redaction import redact

__all__ = ["Document", "dotted", "read_document"]

Path = tuple[str | int, ...]

_UNREADABLE = (yaml.YAMLError, ValueError, OverflowError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as `yaml.safe_load` reads it, less three surprises.

    ``1e-3`` is a number (YAML 1.1 wants ``1.0e-3`` and makes a word of the rest); dates stay words; anchors, aliases
    and tags are refused, so that a file means what it shows and cannot grow or point back into itself.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refusal("anchors and aliases (& and *) are not read; write the value out", event)
        if event.tag is not None:
            raise _refusal(f"the tag {event.tag!r} is not read; leave it out", event)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _refusal(message: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)


@dataclass(frozen=True)
class Document:
    """Plain values with their places; `data` holds the overrides already.

    Attributes:
        source: name of the file, for messages.
        data: the values (anything YAML can say).
        lines: line (from 1) of each value, by path.
        overrides: the ``--set`` text that last wrote a path, without passwords.
    """

    source: str
    data: Any
    lines: dict[Path, int]
    overrides: dict[Path, str]

    def place(self, path: Path) -> str:
        """Where a path was written: ``file:line``, or the ``--set`` that wrote it; of a missing one, its parent's."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return f"--set {self.overrides[path[:length]]}"
            if path[:length] in self.lines:
                return f"{self.source}:{self.lines[path[:length]]}"
        return f"{self.source}:1"

    def changed_below(self, path: Path) -> str:
        """A remark naming the overrides that lie below a path, for rules between values; empty where there are none."""
        texts = [
            text for place, text in self.overrides.items() if len(place) > len(path) and place[: len(path)] == path
        ]
        return f" (changed by {', '.join(f'--set {text}' for text in texts)})" if texts else ""


def dotted(path: Sequence[str | int]) -> str:
    """``space.lr.0.high``; a key that would break the line is quoted."""
    return ".".join(str(part) if str(part).isprintable() else repr(part) for part in path)


def read_document(text: str, source: str, overrides: Sequence[str] = ()) -> Document:
    """Parse YAML and apply overrides such as ``search.trials=8``, whose values are YAML too.

    Raises:
        ConfigurationError: text that is not YAML, a key that stands twice, or an override that fits nowhere; all
            duplicates and overrides that are wrong are listed, one a line.
    """
    node, data = _parse(text, source)
    lines: dict[Path, int] = {}
    errors = list(_index(node, (), lines, source)) if node is not None else []
    document = Document(source, copy.deepcopy(data), lines, {})
    for override in overrides:
        try:
            _apply(document, override)
        except ConfigurationError as error:
            errors.append(redact(f"--set {override}: {error}"))
    if errors:
        raise ConfigurationError("\n".join(errors))
    return document


def _parse(text: str, source: str) -> tuple[Any, Any]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except _UNREADABLE as error:
        raise ConfigurationError(_unreadable(error, source)) from error


def _unreadable(error: Exception, source: str) -> str:
    """One line for what PyYAML spreads over several."""
    mark = getattr(error, "problem_mark", None)
    place = f"{source}:{mark.line + 1}" if mark is not None else source
    if isinstance(error, RecursionError):
        return f"{place}: nested too deeply to be read"
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"{place}: not readable as YAML: {reason}"


def _index(node: Any, path: Path, lines: dict[Path, int], source: str) -> Iterator[str]:
    """Fill `lines` below a node; yields a message for each key that stands twice."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _index(item, (*path, index), lines, source)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            line = key.start_mark.line + 1
            if below in lines:
                yield f"{source}:{line}: {dotted(below)}: stands twice, first on line {lines[below]}; keep one of them"
            lines[below] = line
            yield from _index(value, below, lines, source)


def _apply(document: Document, override: str) -> None:
    """Write one ``path=value`` into the document's data."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigurationError("must read path.to.key=value, such as search.trials=8")
    try:
        value = yaml.load(text, Loader=_Loader)
    except _UNREADABLE as error:
        raise ConfigurationError(
            f"{text!r} is not readable as YAML: {getattr(error, 'problem', None) or error}"
        ) from error
    container: Any = document.data
    path: Path = ()
    part, parts = _next(container, parts)
    while parts:
        key = _key(container, part, path)
        if isinstance(container, dict):
            container.setdefault(key, {})
        container, path = container[key], (*path, key)
        part, parts = _next(container, parts)
    key = _key(container, part, path)
    container[key] = value
    document.overrides[(*path, key)] = redact(override)


def _next(container: Any, parts: list[str]) -> tuple[str, list[str]]:
    """The next key of a split path, and the parts behind it.

    Patterns of module names have dots of their own: of the keys that are there the longest is meant, and a new one with
    an ``@`` takes all that follows.
    """
    known = container if isinstance(container, dict) else {}
    lengths = (length for length in range(len(parts), 0, -1) if ".".join(parts[:length]) in known)
    length = next(lengths, len(parts) if "@" in parts[0] and known is container else 1)
    return ".".join(parts[:length]), parts[length:]


def _key(container: Any, part: str, path: Path) -> str | int:
    """A part of an override's path as the key of what it points into."""
    if isinstance(container, dict):
        return part
    place = dotted(path) or "the file"
    if not isinstance(container, list):
        raise ConfigurationError(f"{place} is {container!r}, which has no keys")
    if not part.isdecimal() or int(part) >= len(container):
        raise ConfigurationError(f"{place} is a list of {len(container)}; {part!r} must be a number below that")
    return int(part)

"""Names of parameters: plain ones, and those of single layers, ``rank@encoder.*``.

The pattern after ``@`` is one of module names (`fnmatch`), as `sngd_tune.SNGD` takes it. Layers that it matches see the
plain values overlaid with its own; a layer that several match sees those of the first, in the order in which the
patterns appear.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["check_pattern", "of_layers", "patterns", "seen_by", "split"]

_SIGN = "@"

#: Neither ``=`` nor ``:`` nor blanks: labels of conditions and names in MLflow have those for themselves.
_PATTERN = re.compile(r"[A-Za-z0-9_.\-*?\[\]!]{1,100}")


def split(name: str) -> tuple[str, str | None]:
    """The parameter that a name is of, and the pattern of its layers; None: it is of all layers, or of none.

    >>> split("rank@encoder.*"), split("lr")
    (('rank', 'encoder.*'), ('lr', None))
    """
    parameter, sign, pattern = name.partition(_SIGN)
    return parameter, pattern if sign else None


def of_layers(parameter: str, pattern: str | None) -> str:
    """The inverse of `split`."""
    return parameter if pattern is None else f"{parameter}{_SIGN}{pattern}"


def patterns(names: Iterable[str]) -> tuple[str, ...]:
    """The patterns of some names, each once, as they appear."""
    found = (split(name)[1] for name in names)
    return tuple(dict.fromkeys(pattern for pattern in found if pattern is not None))


def seen_by(values: Mapping[str, Any], pattern: str | None) -> dict[str, Any]:
    """Flat values as the layers of a pattern see them, under plain names; None: as all other layers do.

    >>> seen_by({"granularity": "input", "rank": 8, "rank@head": 2, "rank@stem": 4}, "head")
    {'granularity': 'input', 'rank': 2}
    """
    named = [(split(name), value) for name, value in values.items()]
    plain = {parameter: value for (parameter, of), value in named if of is None}
    return plain | {parameter: value for (parameter, of), value in named if of == pattern}


def check_pattern(pattern: str) -> str | None:
    """What is wrong with a pattern by itself, with the remedy; None where nothing is."""
    if pattern == "*":
        return "the pattern '*' matches every layer; leave @* out"
    if not _PATTERN.fullmatch(pattern):
        return (
            f"{pattern!r} is no pattern of module names: must be 1 to 100 of letters, digits, '_', '.', '-' and the"
            " wildcards '*', '?', '[…]'; write '?' for any other character"
        )
    return None

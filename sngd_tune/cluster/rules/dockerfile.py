"""Rules for Dockerfiles."""

import re
from collections.abc import Iterator

from sngd_tune.cluster.images import unpinned
from sngd_tune.cluster.rules.documents import Kind
from sngd_tune.cluster.rules.rule import Rule, each

__all__ = ["RULES"]

_REFERENCE = re.compile(r"\$\{(\w+)(?::([+-])((?:[^{}]|\$\{\w+\})*))?\}|\$(\w+)")


def _pinned_images(text: str) -> Iterator[str]:
    defaults = {name: value or "" for name, value in re.findall(r"^ARG\s+(\w+)(?:=(\S*))?", text, re.MULTILINE)}
    stages: set[str] = set()
    for base, stage in re.findall(r"^FROM\s+(?:--\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", text, re.MULTILINE | re.IGNORECASE):
        image = _expanded(base, defaults)
        problem = None if image in {*stages, "scratch"} else unpinned(image)
        if problem:
            yield f"FROM {problem}"
        stages.add(stage)


def _expanded(text: str, values: dict[str, str]) -> str:
    """With the build arguments' defaults, as Docker expands ``${NAME}``, ``${NAME:-other}`` and ``${NAME:+other}``."""

    def value(match: re.Match[str]) -> str:
        name, sign, other = match[1] or match[4], match[2], match[3] or ""
        found = values.get(name, "")
        if sign is None or (sign == "-" and found):
            return found
        return _expanded(other, values) if (sign == "-") or found else ""

    return _REFERENCE.sub(value, text)


def _non_root(text: str) -> Iterator[str]:
    users = re.findall(r"^USER\s+(\S+)", text, re.MULTILINE)
    if not users:
        yield "no USER, and so root"
    elif users[-1].partition(":")[0] in ("0", "root"):
        yield f"USER {users[-1]}"


def _secrets(text: str) -> Iterator[str]:
    for name in re.findall(r"^(?:ARG|ENV)\s+(\w*(?:PASSWORD|SECRET|TOKEN)\w*)=\S", text, re.MULTILINE):
        yield f"{name} stays in the image"


def _authentication(text: str) -> Iterator[str]:
    if not re.search(r"\bRAY_AUTH_MODE=token\b", text):
        yield "RAY_AUTH_MODE=token is not set"


def _exec_form(text: str) -> Iterator[str]:
    for instruction, rest in re.findall(r"^(ENTRYPOINT|CMD)\s+(.*)", text, re.MULTILINE):
        if not rest.startswith("["):
            yield f"{instruction} is no list, and its shell keeps signals to itself"


RULES: tuple[Rule, ...] = (
    each(
        Kind.DOCKERFILE,
        "authentication",
        _authentication,
        "set ENV RAY_AUTH_MODE=token: Ray then starts with a token or not at all",
    ),
    each(Kind.DOCKERFILE, "pinned-images", _pinned_images, "name a version or a digest"),
    each(Kind.DOCKERFILE, "non-root", _non_root, "end with USER 1000:1000"),
    each(Kind.DOCKERFILE, "secrets", _secrets, "give secrets when the container runs, or with --mount=type=secret"),
    each(Kind.DOCKERFILE, "exec-form", _exec_form, 'write it as ["…"]'),
)

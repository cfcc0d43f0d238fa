"""Names of container images: whether one means the same bytes tomorrow."""

import re

__all__ = ["unpinned"]

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
#: Tags that move on purpose, alone or before a suffix such as `-slim`.
_MOVING = re.compile(r"^(latest|stable|edge|nightly|main|master|dev|lts)([.-]|$)")


def unpinned(image: str) -> str | None:
    """Why an image may be another one tomorrow; None where it has a digest, or a tag that names a version.

    >>> unpinned("registry.example:5000/sngd_tune:0.3.0")
    >>> unpinned("postgres:17")
    "postgres:17: the tag '17' moves with each release"
    """
    if _DIGEST.search(image):
        return None
    tag = image.rpartition("/")[2].partition(":")[2]
    if not tag:
        return f"{image}: has no tag, which means latest"
    if _MOVING.search(tag) or not re.search(r"\d+\.\d+|[0-9a-f]{7,}", tag):
        return f"{image}: the tag {tag!r} moves with each release"
    return None

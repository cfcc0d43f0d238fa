"""Checksums: of what was read, against those of the published files."""

import hashlib

__all__ = ["difference", "md5", "sha256"]


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    """In hexadecimal. Against accidents alone: some files were published with no other."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def difference(content: bytes, published: str) -> str | None:
    """How the checksum of a content differs from the published one, such as ``"md5:f26c…"``; None where it does not."""
    kind, _, wanted = published.partition(":")
    found = {"sha256": sha256, "md5": md5}[kind](content)
    return None if found == wanted else f"not the published file: has the {kind} {found}, the published one {wanted}"

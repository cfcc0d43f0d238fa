"""Reading what people wrote: a part that is missing, or of another type, is empty and never an error here."""

from typing import Any

__all__ = ["Object", "at", "mapping", "mappings", "words"]

Object = dict[str, Any]


def at(data: Any, *keys: str) -> Any:
    """The value below mappings; None where one of them is missing.

    >>> at({"a": {"b": 1}}, "a", "b"), at({"a": 2}, "a", "b")
    (1, None)
    """
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def mapping(data: Any, *keys: str) -> Object:
    """As `at`, for a mapping."""
    value = at(data, *keys)
    return value if isinstance(value, dict) else {}


def mappings(data: Any, *keys: str) -> list[Object]:
    """As `at`, for a list of mappings."""
    value = at(data, *keys)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def words(data: Any, *keys: str) -> list[str]:
    """As `at`, for a list of words."""
    value = at(data, *keys)
    return [str(item) for item in value] if isinstance(value, list) else []

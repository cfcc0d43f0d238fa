"""What the schemas of all files have in common: strictness, and the types of single values."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

__all__ = ["Name", "Scalar", "Strict", "as_many", "as_tuple"]


class Strict(BaseModel):
    """Unknown keys, quoted numbers, NaN and infinity are errors; a list may stand for a tuple."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def as_many(value: Any) -> Any:
    """One value where several may stand means a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def as_tuple(value: Any) -> Any:
    """A list in a file is a tuple here."""
    return tuple(value) if isinstance(value, list) else value


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("must be a single number, word, true or false")
    return value


#: Plain, so that a wrong value gives one message and not one for each member of the union.
Scalar = Annotated[bool | int | float | str, PlainValidator(_scalar)]

#: Names that also name folders and experiments.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]

"""A selection as a file that trains: settings as `SNGD` takes them, then all that is known of them.

Each value stands once. ``sngd`` and ``fisher``, with the keys of a study's ``best.yaml``, are the arguments of `SNGD`,
and ``selection`` has the rest of the record: a value that is changed by hand is changed for whoever reads the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sngd_tune.atomic import replacing
from sngd_tune.errors import ConfigurationError, MissingDependencyError
from sngd_tune.records.selection import SELECTION_VERSION, SelectionRecord, pattern_of
from sngd_tune.selection.reading import from_plain, listed, mapping
from sngd_tune.settings import NONE

try:
    import yaml
except ImportError as error:
    raise MissingDependencyError("a selection is written as YAML: pip install 'sngd_tune[tune]'") from error

__all__ = ["load", "save", "usage"]

_OPTIMIZER = "sngd"
#: What stands before ``selection``: the key there, and the field of the record.
_HEAD = {"workload": "subject", "batch_size": "batch_size", "lr_schedule": "lr_schedule", "sngd": "optimizer"}
_REMEDY = "correct it there, or write the file anew with `sngd-tune auto`"
_UNREADABLE = (yaml.YAMLError, ValueError, OverflowError, RecursionError)


class _Dumper(yaml.SafeDumper):
    """Words stay readable; what another reader could take for the end of a line is escaped."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"'),
)


def save(record: SelectionRecord, path: Path) -> None:
    """Write a selection as YAML, with the lines that use it; whole or not at all.

    Args:
        record: what was found; NaN and infinity are kept.
        path: in a directory that exists; an older file there is replaced.

    Raises:
        ConfigurationError: it cannot be written; what was there before is as it was.
    """
    comments = [_printable(f"Settings selected for {record.subject}"), "", *usage(_printable(path.name)).splitlines()]
    head, rest = _parts(record)
    text = "".join(f"# {line}".rstrip() + "\n" for line in comments) + _dump(head, False)
    text += _dump({"selection": rest}, None)
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be written ({error.strerror or error}); choose another path"
        ) from error


def load(path: Path | str) -> SelectionRecord:
    """Read what `save` wrote; ``Selection(load(path))`` is the selection itself.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, was written by another version, or has a value that is
            missing, unknown, of another type or out of its range; the message names file, place, value and rule.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except _UNREADABLE as error:
        raise ConfigurationError(f"{path}: no readable YAML ({error}); {_REMEDY}") from error
    try:
        return _record(values)
    except OverflowError as error:
        raise ConfigurationError(f"{path}: a number is too large ({error}); {_REMEDY}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}; {_REMEDY}") from error


def usage(path: Path | str) -> str:
    """Python lines that train a model with the file at `path`, under the schedule that its learning rate is for."""
    return "\n".join(
        (
            "import yaml",
            "from pathlib import Path",
            "from sngd_tune import SNGD",
            "from sngd_tune.lr_schedule import LrSchedule",
            f'best = yaml.safe_load(Path({json.dumps(str(path), ensure_ascii=False)}).read_text("utf-8"))',
            'optimizer = SNGD(model, best["fisher"], **best["sngd"])',
            'schedule = LrSchedule(optimizer, best["lr_schedule"])',
            "# after each step: schedule.at(done), the share of the training that is over, from 0 to 1",
        )
    )


def _parts(record: SelectionRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands at the top, as a study's recipe has it, and the rest of the record."""
    rest = record.to_dict()
    head = {key: rest.pop(field) for key, field in _HEAD.items()}
    fisher = {pattern_of(layer["layer"]): layer.pop("settings") or NONE for layer in rest["layers"]}
    return {"workload": head.pop("workload"), "optimizer": _OPTIMIZER, **head, "fisher": fisher}, rest


def _record(values: Any) -> SelectionRecord:
    """The inverse of `_parts`."""
    for key in ("optimizer", "fisher", "selection", *_HEAD):
        if not isinstance(values, Mapping) or key not in values:
            raise ConfigurationError(f"{key!r} is missing: no selection")
    if values["optimizer"] != _OPTIMIZER:
        raise ConfigurationError(f"optimizer: {values['optimizer']!r}: must be {_OPTIMIZER!r}")
    rest = dict(mapping(values["selection"], "selection"))
    version = rest.pop("schema", None)
    if version != SELECTION_VERSION:
        raise ConfigurationError(f"selection.schema: {version!r}: this sngd_tune reads {SELECTION_VERSION}")
    layers = _with_settings(rest.get("layers"), dict(mapping(values["fisher"], "fisher")))
    known = {field: values[key] for key, field in _HEAD.items()}
    return from_plain(SelectionRecord, {**rest, **known, "layers": layers}, "selection")


def _with_settings(layers: Any, fisher: dict[Any, Any]) -> list[dict[Any, Any]]:
    """The layers of a file, each with its settings from ``fisher``."""
    found = []
    for place, layer in enumerate(listed(layers, "selection.layers")):
        name = mapping(layer, f"selection.layers[{place}]").get("layer")
        pattern = pattern_of(name) if isinstance(name, str) else None
        if pattern not in fisher:
            raise ConfigurationError(
                f"fisher: has nothing for layer {name!r}; {NONE!r} stands for no local Fisher layer"
            )
        settings = fisher.pop(pattern)
        if settings is None or settings == NONE:
            found.append({**layer, "name": NONE, "settings": None})
        elif layer.get("name") == NONE:
            raise ConfigurationError(f"fisher: {pattern!r}: must be {NONE!r}, as that is what the layer got")
        else:
            found.append({**layer, "settings": settings})
    if fisher:
        raise ConfigurationError(f"fisher: {next(iter(fisher))!r} is no layer of the selection")
    return found


def _printable(text: str) -> str:
    """What a comment can hold: YAML refuses control characters even there, and a line ends the comment."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _dump(values: Mapping[str, Any], flow: bool | None) -> str:
    """As YAML; with ``None`` for `flow`, a collection without others in it has one line."""
    layout: Any = {"sort_keys": False, "width": 120, "allow_unicode": True, "default_flow_style": flow}
    text: str = yaml.dump(values, Dumper=_Dumper, **layout)
    return text

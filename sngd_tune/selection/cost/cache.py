"""Where measured seconds are kept between runs: one JSON file, by environment and operation.

A file that cannot be read, or is of another version, counts as empty and is written anew. Several processes may use
one: before it writes, each takes in what the others have written. The file is replaced whole; what is lost where two
write in the same moment is measured again.
"""

import json
import math
import os
import warnings
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from sngd_tune.atomic import replacing
from sngd_tune.records.machine import processor_name
from sngd_tune.selection.cost.timing import Timing

__all__ = ["CACHE_VERSION", "CostCache", "default_cache", "environment"]

#: Of the file's form and of what is measured: raise it where the operations change their price.
CACHE_VERSION = 2
#: Entries of an environment; the oldest go first.
_MOST = 20_000


def default_cache() -> Path:
    """``sngd_tune/cost.json`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "sngd_tune" / "cost.json"


def environment(device: torch.device, threads: int) -> str:
    """What decides the seconds beside the operation: the device's name, torch's version, CPU threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return f"{device.type}: {name}; torch {torch.__version__}; {threads} threads"


class CostCache:
    """The timings of one environment.

    Args:
        path: of the file, which may not exist yet; None: nothing is read or written.
        environment: as `environment` names it.
    """

    def __init__(self, path: Path | None, environment: str):
        self._path, self._environment = path, environment
        self._known: dict[str, Timing] = {}
        self._fresh: dict[str, Timing] = {}
        if path is not None:
            self._known = _timings(_read(path).get(environment))

    def get(self, key: str) -> Timing | None:
        """The timing of an operation, where it is known."""
        return self._known.get(key)

    def put(self, key: str, timing: Timing) -> None:
        """Keep a timing; `save` writes it."""
        self._known[key] = self._fresh[key] = timing

    def save(self) -> None:
        """Write what is new. A file that cannot be written is warned of, once."""
        if self._path is None or not self._fresh:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            whole = _read(self._path)
            merged = {**_timings(whole.get(self._environment)), **self._fresh}
            kept = islice(merged.items(), max(0, len(merged) - _MOST), None)
            whole[self._environment] = {key: [timing.seconds, timing.measured] for key, timing in kept}
            with replacing(self._path) as file:
                file.write(json.dumps({"version": CACHE_VERSION, "environments": whole}).encode())
        except OSError as error:
            warnings.warn(f"{self._path}: measured costs cannot be kept there ({error}); pass cache=None", stacklevel=2)
            self._path = None
        self._fresh.clear()


def _read(path: Path) -> dict[str, Any]:
    """The environments in a file; none where it is missing, corrupted or of another version."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or found.get("version") != CACHE_VERSION:
        return {}
    environments = found.get("environments")
    return environments if isinstance(environments, dict) else {}


def _timings(entries: object) -> dict[str, Timing]:
    """Those entries that are as `CostCache.save` writes them."""
    if not isinstance(entries, Mapping):
        return {}
    return {key: Timing(float(entry[0]), entry[1]) for key, entry in entries.items() if _is_timing(entry)}


def _is_timing(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], bool):
        return False
    seconds = entry[0]
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return number and math.isfinite(seconds) and seconds >= 0

"""Watts of a busy CPU, for machines without an energy counter: the user's figure, else a published one."""

import functools
import math
import os
import re

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.machine import processor_name

__all__ = ["WATTS_VARIABLE", "named_watts", "watts_per_cpu"]

#: The user's own figure, by what the machine draws at the wall or its data sheet says; of a cluster, each node's own.
WATTS_VARIABLE = "SNGD_TUNE_WATTS"

#: Watts of one logical CPU that is always busy, by the processor's name: SPECpower results of whole servers at full
#: load over their logical CPUs, as Cloud Carbon Footprint has averaged them by microarchitecture
#: (https://www.cloudcarbonfootprint.org/docs/methodology). Clouds often name no model: then the mean of its maker's.
_WATTS = (
    (r"EPYC 7..1", 2.55),  # Naples
    (r"EPYC 7..2", 1.69),  # Rome
    (r"EPYC 7..3", 2.02),  # Milan
    (r"EPYC", 2.09),
    (r"Xeon.* E5-\d+[A-Z]* v3", 4.74),  # Haswell
    (r"Xeon.* E5-\d+[A-Z]* v4", 3.69),  # Broadwell
    (r"Xeon.* (Platinum 81|Gold [56]1|Silver 41)\d\d", 4.26),  # Skylake
    (r"Xeon.* (Platinum 82|Gold [56]2|Silver 42)\d\d", 3.97),  # Cascade Lake
)

#: Of a processor that the table does not know: the average of one cloud's machines, from the same source.
_UNKNOWN = 3.54


def watts_per_cpu() -> float:
    """Watts of one busy logical CPU of this machine. Raises as `named_watts`."""
    named = named_watts()
    return _of_this_processor() if named is None else named


def named_watts() -> float | None:
    """What the user's environment says; None where it says nothing.

    Raises:
        ConfigurationError: it is no finite number > 0.
    """
    text = os.environ.get(WATTS_VARIABLE)
    if not text:
        return None
    try:
        watts = float(text)
    except ValueError:
        watts = math.nan
    if not (math.isfinite(watts) and watts > 0):
        raise ConfigurationError(
            f"{WATTS_VARIABLE}={text}: a busy logical CPU takes a finite number of watts, > 0; unset it to have one"
        )
    return watts


@functools.cache
def _of_this_processor() -> float:
    """Found once: on some machines the kernel takes milliseconds to describe its processors."""
    return _published(processor_name())


def _published(processor: str) -> float:
    """The table's figure for a processor.

    >>> _published("AMD EPYC 7763 64-Core Processor"), _published("something new")
    (2.02, 3.54)
    """
    return next((watts for pattern, watts in _WATTS if re.search(pattern, processor)), _UNKNOWN)

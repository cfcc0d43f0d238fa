"""What a study used, in words. What comes from different sources stands side by side and is never added."""

from typing import Any

from sngd_tune.records.energy import WATT_HOUR, Energy
from sngd_tune.report.values import Budget

__all__ = ["amount", "energy_text", "energy_values"]

_UNITS = ((1000 * WATT_HOUR, "kWh"), (WATT_HOUR, "Wh"), (1.0, "J"))


def energy_text(used: Budget) -> str:
    """``"12.3 Wh (estimate), of which search 10.1 Wh"``; a source after the other, then what is not known."""
    search = {each.source: each.joules for each in used.search_energy}
    parts = [_part(each, search.get(each.source, 0.0)) for each in used.energy]
    if used.unmetered:
        trainings = "training" if used.unmetered == 1 else "trainings"
        parts.append(f"unknown for {used.unmetered} {trainings}")
    return "; ".join(parts) or "none yet"


def energy_values(used: Budget) -> dict[str, Any]:
    """The same for JSON: one entry a source, and the number of trainings whose energy is not known."""
    search = {each.source: each.joules for each in used.search_energy}
    sources = [
        {
            "source": each.source,
            "measured": each.measured,
            "joules": each.joules,
            "kwh": each.watt_hours / 1000,
            "search_joules": search.get(each.source, 0.0),
        }
        for each in used.energy
    ]
    return {"sources": sources, "unmetered": used.unmetered}


def _part(energy: Energy, search: float) -> str:
    total = f"{amount(energy.joules)} ({energy.source.replace('_', ' ')})"
    return f"{total}, of which search {amount(search)}" if 0 < search < energy.joules else total


def amount(joules: float) -> str:
    """Joules in the unit that reads well.

    >>> amount(20), amount(44_280), amount(7.2e6)
    ('20 J', '12.3 Wh', '2 kWh')
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if joules >= size), _UNITS[-1])
    return f"{joules / size:.3g} {unit}"

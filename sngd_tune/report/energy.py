"""What a study used, in words. What comes from different sources stands side by side and is never added."""

from sngd_tune.records.energy import WATT_HOUR, Energy
from sngd_tune.report.values import Budget

__all__ = ["amount", "energy_text"]

_UNITS = ((1000 * WATT_HOUR, "kWh"), (WATT_HOUR, "Wh"), (1.0, "J"))


def energy_text(used: Budget) -> str:
    """``"12.3 Wh (estimate), of which search 10.1 Wh"``; a source after the other, then what is not known."""
    search = {each.source: each.joules for each in used.search_energy}
    parts = [_part(each, search.get(each.source, 0.0)) for each in used.energy]
    if used.unmetered:
        trainings = "training" if used.unmetered == 1 else "trainings"
        parts.append(f"unknown for {used.unmetered} {trainings}")
    return "; ".join(parts) or "none yet"


def _part(energy: Energy, search: float) -> str:
    return f"{amount(energy.joules)} ({energy.source.replace('_', ' ')}), of which search {amount(search)}"


def amount(joules: float) -> str:
    """Joules in the unit that reads well.

    >>> amount(20), amount(44_280), amount(7.2e6)
    ('20 J', '12.3 Wh', '2 kWh')
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if joules >= size), _UNITS[-1])
    return f"{joules / size:.3g} {unit}"

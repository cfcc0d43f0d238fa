"""A language of the report: its words, from one catalogue, and how it writes numbers, units, money and dates.

A catalogue is ``words/<code>.toml``. A sentence names its values with a format each: ``"{seconds:duration}"`` is
written by the method of that name, ``"{n:count.seed}"`` with the plural that stands under ``count.seed``.
"""

import math
import string
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from importlib.resources import files
from typing import Any

__all__ = ["Language", "LanguageCode", "duration_unit", "energy_unit"]

#: Unit, its seconds, and how many of it there have to be: 90 s are minutes, 80 s are not.
_DURATIONS = (("second", 1.0, 0.0), ("minute", 60.0, 1.5), ("hour", 3600.0, 1.5), ("day", 86400.0, 2.0))
_ENERGIES = (("J", 1.0), ("kJ", 1e3), ("kWh", 3.6e6))


class LanguageCode(StrEnum):
    """Languages that have a catalogue."""

    EN = "en"
    JA = "ja"


class Language(string.Formatter):
    """Writes a report in one language.

    >>> Language("en").duration(5400.0), Language("ja").duration(5400.0)
    ('1.5 hr', '1.5 時間')
    >>> Language("en").count(1, "seed"), Language("en").count(5, "seed")
    ('1 seed', '5 seeds')

    Args:
        code: one of `LanguageCode`.
    """

    def __init__(self, code: str):
        self.code = LanguageCode(code)

    @cached_property
    def catalogue(self) -> Mapping[str, Any]:
        """The words as the file has them: strings and tables of strings."""
        path = files("sngd_tune.report.decision") / "words" / f"{self.code}.toml"
        return tomllib.loads(path.read_text(encoding="utf-8"))

    def say(self, key: str, **values: Any) -> str:
        """The text of a key such as ``"columns.workload"``, with its values; KeyError where it has none."""
        return self.format(self._entry(key), **values)

    def format_field(self, value: Any, spec: str) -> str:
        """What ``{value:spec}`` stands for."""
        name, _, noun = spec.partition(".")
        if noun:
            return self.count(value, noun)
        return str(getattr(self, name)(value) if name else value)

    def count(self, number: float, noun: str) -> str:
        """So many of something, in its plural."""
        forms = self.catalogue["count"][noun]
        form = forms.get(self._locale.plural_form(number), forms["other"])
        return str(form.replace("{n}", self.number(number)))

    def number(self, value: float) -> str:
        """Three digits; whole numbers, and all from 100 on, without decimals."""
        from babel.numbers import format_decimal

        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        return format_decimal(value, _pattern(value), self._locale)

    def factor(self, value: float) -> str:
        """A ratio, with two digits behind the point: those of one table are to be compared."""
        from babel.numbers import format_decimal

        if math.isinf(value):
            return self.number(value)
        return format_decimal(value, "0.00", self._locale) if value < 10 else self.number(value)

    def signed(self, value: float) -> str:
        """A difference, with its sign."""
        return f"+{self.number(value)}" if value > 0 else self.number(value)

    def share(self, value: float) -> str:
        """A part of one, in per cent."""
        from babel.numbers import format_percent

        return format_percent(value, locale=self._locale)

    def list(self, items: Iterable[str]) -> str:
        """Names, one after the other."""
        from babel.lists import format_list

        return format_list(list(items), locale=self._locale)

    def duration(self, seconds: float) -> str:
        """In the unit that reads well."""
        from babel.units import format_unit

        name, size = duration_unit(seconds)
        value = seconds / size
        return format_unit(value, f"duration-{name}", "short", _pattern(value), locale=self._locale)

    def energy(self, joules: float) -> str:
        """In J, kJ or kWh."""
        symbol, size = energy_unit(joules)
        return self._measured(joules / size, symbol)

    def memory(self, size: float) -> str:
        """Bytes as GB (10⁹)."""
        return self._measured(size / 1e9, "GB")

    def money(self, value: float, currency: str) -> str:
        """An amount; a small one with three digits, for a training may cost a part of a cent."""
        from babel.numbers import format_currency, get_currency_precision

        if value and abs(value) < 10 / 10 ** get_currency_precision(currency):
            return format_currency(value, currency, "¤@##", locale=self._locale, currency_digits=False)
        return format_currency(value, currency, locale=self._locale)

    def span(self, low: float, high: float) -> str:
        """From one end to the other. A minus, and no hyphen, keeps its number on its line."""
        ends = [self.number(end).replace("-", "\N{MINUS SIGN}") for end in (low, high)]
        return ends[0] if ends[0] == ends[1] else self.say("span", low=ends[0], high=ends[1])

    def date(self, at: float) -> str:
        """A day, of UTC in Unix seconds."""
        from babel.dates import format_date

        return format_date(datetime.fromtimestamp(at, UTC), "long", self._locale)

    @cached_property
    def _locale(self) -> Any:
        from babel import Locale

        return Locale(self.code)

    def _measured(self, value: float, symbol: str) -> str:
        """With a symbol that all languages write alike."""
        return f"{self.number(value)}\N{NO-BREAK SPACE}{symbol}"

    def _entry(self, key: str) -> str:
        found: Any = self.catalogue
        for part in key.split("."):
            found = found[part]
        return str(found)


def duration_unit(seconds: float) -> tuple[str, float]:
    """The unit that this reads well in: CLDR's name, and its seconds."""
    return [(name, size) for name, size, least in _DURATIONS if abs(seconds) >= least * size][-1]


def energy_unit(joules: float) -> tuple[str, float]:
    """The unit that this reads well in: symbol, and its joules."""
    return next((unit for unit in reversed(_ENERGIES) if abs(joules) >= 0.1 * unit[1]), _ENERGIES[0])


def _pattern(value: float) -> str:
    return "#,##0" if abs(value) >= 99.95 or value == round(value) else "@##"

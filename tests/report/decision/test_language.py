import string
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sngd_tune.energy.cost import Prices
from sngd_tune.errors import ConfigurationError
from sngd_tune.report.decision.language import Language, LanguageCode
from sngd_tune.report.decision.values import Terms

NBSP = "\N{NO-BREAK SPACE}"


def sentences(words: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every sentence by its key; plurals, of which languages have different ones, are left out."""
    for name, entry in words.items():
        key = f"{path}{name}"
        if isinstance(entry, Mapping):
            if not key.startswith("count."):
                yield from sentences(entry, f"{key}.")
        else:
            yield key, entry


def placeholders(sentence: str) -> list[tuple[str, str]]:
    return sorted((name, spec or "") for _, name, spec, _ in string.Formatter().parse(sentence) if name)


@pytest.mark.parametrize("code", [code for code in LanguageCode if code != "en"])
def test_every_language_has_the_same_sentences_with_the_same_values_in_the_same_formats(code: str) -> None:
    english, other = Language("en").catalogue, Language(code).catalogue
    assert {key: placeholders(text) for key, text in sentences(other)} == {
        key: placeholders(text) for key, text in sentences(english)
    }
    assert other["count"].keys() == english["count"].keys()


@pytest.mark.parametrize("code", list(LanguageCode))
def test_every_format_that_a_sentence_names_is_one(code: str) -> None:
    language = Language(code)
    for key, text in sentences(language.catalogue):
        for _, spec in placeholders(text):
            name, _, noun = spec.partition(".")
            assert not name or callable(getattr(language, name, None)), key
            assert not noun or "other" in language.catalogue["count"][noun], key


@pytest.mark.parametrize("code", list(LanguageCode))
def test_every_plural_says_its_number(code: str) -> None:
    assert all("{n}" in form for forms in Language(code).catalogue["count"].values() for form in forms.values())


@pytest.mark.parametrize(
    ("seconds", "english", "japanese"),
    [
        (0.0, "0 sec", "0 秒"),
        (0.0123, "0.0123 sec", "0.0123 秒"),
        (1.5, "1.5 sec", "1.5 秒"),
        (-400.0, "-6.67 min", "-6.67 分"),
        (5400.0, "1.5 hr", "1.5 時間"),
        (864000.0, "10 days", "10 日"),
    ],
)
def test_durations_have_the_unit_that_reads_well(seconds: float, english: str, japanese: str) -> None:
    assert (Language("en").duration(seconds), Language("ja").duration(seconds)) == (english, japanese)


def test_energy_has_the_unit_that_reads_well() -> None:
    told = [Language("ja").energy(joules) for joules in (0.0, 54.0, 5400.0, 3.6e6)]
    assert told == [f"0{NBSP}J", f"54{NBSP}J", f"5.4{NBSP}kJ", f"1{NBSP}kWh"]


def test_money_is_written_as_its_language_writes_it() -> None:
    english, japanese = Language("en"), Language("ja")
    assert english.money(1234.5, "EUR") == "€1,234.50"
    assert english.money(0.3, "EUR") == "€0.30"
    assert english.money(0.000211, "EUR") == "€0.000211"
    assert japanese.money(1234.0, "JPY") == "￥1,234"


def test_numbers_keep_three_digits_and_no_more() -> None:
    language = Language("en")
    told = [language.number(value) for value in (0.0, 5.0, 0.68256, 99.97, 12345.6, float("inf"), float("-inf"))]
    assert told == ["0", "5", "0.683", "100", "12,346", "∞", "−∞"]


def test_a_rate_or_currency_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="trainings_per_month=0"):
        Terms(trainings_per_month=0.0)
    with pytest.raises(ConfigurationError, match=r"currency='EURO'.*ISO 4217"):
        Terms(prices=Prices(currency="EURO"))

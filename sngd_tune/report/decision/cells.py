"""The tables of a decision: one row a workload, cells in words and figures of a language."""

import math
from collections.abc import Sequence

from sngd_tune.energy.cost import Amounts
from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.comparison.stability import Count, Stability
from sngd_tune.report.comparison.values import ToTarget
from sngd_tune.report.decision.evidence import REFERENCE
from sngd_tune.report.decision.language import Language, duration_unit, energy_unit
from sngd_tune.report.decision.values import Decision, Duel, Economy, Evidence, Range
from sngd_tune.report.page import TableBlock
from sngd_tune.report.statistics import Difference

__all__ = ["metric_sign", "savings_table", "speed_table", "stability_table"]


def metric_sign(metric: str) -> str:
    """How a target of this metric is reached."""
    return "≤" if metric.endswith("loss") else "≥"


def speed_table(decision: Decision, language: Language) -> TableBlock:
    """Times to the target, their ratios to the best baseline and to AdamW, the test metric, and what that comes to."""
    say = language.say
    columns = [
        say("columns.workload"),
        decision.candidate,
        say("columns.best"),
        say("columns.ratio"),
        say("columns.reference", method=REFERENCE),
        say("columns.metric"),
        say("columns.standing"),
    ]
    rows = [_speed_row(each, language) for each in decision.evidence]
    caption = say("captions.speed", candidate=decision.candidate)
    return TableBlock(columns, rows, caption, ("left", "right", "right", "right", "right", "right", "left"))


def savings_table(decision: Decision, language: Language) -> TableBlock:
    """Savings per training and per month in time, energy and cost; months only where the user gave a rate."""
    say, monthly = language.say, decision.terms.trainings_per_month is not None
    amounts = ("time", "energy", "cost", *(("month_time", "month_energy", "month_cost") if monthly else ()))
    columns = [say(f"columns.{name}") for name in ("workload", *amounts, "pays", "cycles")]
    rows = [_savings_row(each, decision, language) for each in decision.evidence]
    caption = say("captions.savings", candidate=decision.candidate)
    return TableBlock(columns, rows, caption, ("left", *("right",) * (len(columns) - 1)))


def stability_table(decision: Decision, language: Language) -> TableBlock:
    """What reaches the target, fails and spreads: the candidate and the best baseline."""
    names = ("workload", "seeds", "settings", "failed", "spread")
    rows = [_stability_row(each, language) for each in decision.evidence]
    caption = language.say("captions.stability", candidate=decision.candidate)
    return TableBlock([language.say(f"columns.{name}") for name in names], rows, caption, ("left", *("right",) * 4))


def _speed_row(each: Evidence, language: Language) -> list[str]:
    best = each.best
    return [
        each.workload,
        _reached(each.seconds, language),
        _named(best, language),
        _ratio(best, language),
        _ratio(each.reference, language),
        _difference(best.difference if best else None, language),
        _finding(each, language),
    ]


def _reached(found: ToTarget | None, language: Language) -> str:
    if found is None:
        return _unknown(language)
    time = language.say("cells.missed") if math.isinf(found.median) else language.duration(found.median)
    return language.say("cells.reached", time=time, n=found.reached.count, of=found.reached.of)


def _ratio(duel: Duel | None, language: Language) -> str:
    if duel is None or duel.ratio is None:
        return _unknown(language)
    ratio = duel.ratio
    if ratio.verdict == "both miss":
        return language.say("words.both_miss")
    if ratio.low is None or ratio.high is None:
        return language.say("cells.seeds", median=ratio.median, n=ratio.n)
    if ratio.high == 0:
        return language.say("words.baseline_misses")
    if math.isinf(ratio.low):
        return language.say("words.misses")
    return language.say("cells.interval", median=ratio.median, low=ratio.low, high=ratio.high)


def _difference(difference: Difference | None, language: Language) -> str:
    if difference is None:
        return _unknown(language)
    if difference.low is None or difference.high is None:
        text = language.say("cells.no_interval", mean=difference.mean)
    else:
        text = language.say("cells.difference", mean=difference.mean, low=difference.low, high=difference.high)
    return language.say("cells.metric", metric=language.say(f"metric.{difference.metric}"), text=text)


def _named(best: Duel | None, language: Language) -> str:
    if best is None:
        return _unknown(language)
    return language.say("cells.method", method=best.baseline, text=_reached(best.seconds, language))


def _finding(each: Evidence, language: Language) -> str:
    standing = language.say(f"finding.{each.standing}")
    return language.say("cells.finding", finding=standing, text=_in_words(each, language))


def _in_words(each: Evidence, language: Language) -> str:
    """What a manager takes from the row: who beats it, or how much sooner it is, or why that is not said."""
    beaten = {"words.slower_than": each.slower_than, "words.worse_than": each.worse_than}
    clauses = [language.say(key, methods=methods) for key, methods in beaten.items() if methods]
    return language.say("clause_separator").join(clauses) or _speed(each.best.ratio if each.best else None, language)


def _speed(ratio: Ratio | None, language: Language) -> str:
    if ratio is None:
        return _unknown(language)
    if ratio.verdict in ("faster", "slower"):
        if ratio.median == 0:
            return language.say("words.baseline_misses")
        return language.say("words.misses") if math.isinf(ratio.median) else _change(ratio.median, language)
    return language.say(f"words.{ratio.verdict.replace(' ', '_')}")


def _change(ratio: float, language: Language) -> str:
    return language.say("words.faster" if ratio < 1 else "words.slower", share=abs(1 - ratio))


def _savings_row(each: Evidence, decision: Decision, language: Language) -> list[str]:
    economy, monthly = each.economy, decision.terms.trainings_per_month is not None
    if economy is None:
        return [each.workload, *[_unknown(language)] * (8 if monthly else 5)]
    if economy.saved is None:
        cells = [*_obstacle(economy, language), *([_unknown(language)] * 3 if monthly else [])]
    else:
        cells = _amounts(economy.saved, economy.saved_interval, economy, decision, language)
    if economy.saved_per_month is not None:
        cells += _amounts(economy.saved_per_month, economy.saved_per_month_interval, economy, decision, language)
    return [each.workload, *cells, _payback(economy, language), _cycles(economy, language)]


def _obstacle(economy: Economy, language: Language) -> list[str]:
    reason = {"missed": "words.misses", "baseline_missed": "words.baseline_misses"}.get(economy.obstacle or "")
    return [language.say(reason) if reason else _unknown(language), *[_unknown(language)] * 2]


def _amounts(
    of: Amounts, interval: Range | None, economy: Economy, decision: Decision, language: Language
) -> list[str]:
    """Time, energy, cost, each above its interval; in parentheses what is not told from nothing."""
    prices, estimated = decision.terms.prices, economy.energy == "estimated"
    guessed = {"joules": estimated, "cost": estimated and prices.kwh is not None}
    cells = []
    for name, value in vars(of).items():
        if value is None:
            cells.append(_unknown(language))
            continue
        text, unit = _written(name, value, prices.currency, language)
        text = language.say("cells.estimated", amount=text) if guessed.get(name) else text
        cells.append(_above(text, interval, name, unit, economy, language))
    return cells


def _written(name: str, value: float, currency: str, language: Language) -> tuple[str, float]:
    """An amount, and the size of the unit that it is written in."""
    if name == "seconds":
        return language.duration(value), duration_unit(value)[1]
    if name == "joules":
        return language.energy(value), energy_unit(value)[1]
    return language.money(value, currency), 1.0


def _above(text: str, interval: Range | None, name: str, unit: float, economy: Economy, language: Language) -> str:
    """An amount, and under it its interval in the same unit, where it has one."""
    shown = text if name in economy.shown else language.say("chance", text=text)
    if interval is None:
        return shown
    return f"{shown}\n{language.span(getattr(interval.low, name) / unit, getattr(interval.high, name) / unit)}"


def _payback(economy: Economy, language: Language) -> str:
    if economy.break_even is None:
        return _unknown(language)
    never = "seconds" in economy.never
    text = language.say("cells.never") if never else language.say("cells.trainings", n=economy.break_even.seconds)
    return _above(text, economy.break_even_interval, "seconds", 1.0, economy, language)


def _cycles(economy: Economy, language: Language) -> str:
    own, other = economy.cycles_per_week, economy.baseline_cycles_per_week
    if own is None or other is None:
        return _unknown(language)
    return language.say("cells.cycles", own=own, other=other)


def _stability_row(each: Evidence, language: Language) -> list[str]:
    sides: Sequence[Stability | None] = (each.stability, each.best.stability if each.best else None)
    counts = [[_count(getattr(side, name) if side else None, language) for side in sides] for name in _COUNTS]
    spreads = [_spread(side.log_time_deviation if side else None, language) for side in sides]
    return [each.workload, *(language.say("cells.pair", own=own, other=other) for own, other in [*counts, spreads])]


_COUNTS = ("seeds_reached", "settings_reached", "failed")


def _count(count: Count | None, language: Language) -> str:
    return language.say("cells.part", n=count.count, of=count.of) if count and count.of else _unknown(language)


def _spread(deviation: float | None, language: Language) -> str:
    return _unknown(language) if deviation is None else language.factor(deviation)


def _unknown(language: Language) -> str:
    return language.say("cells.unknown")

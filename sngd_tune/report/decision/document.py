"""A decision in words: a document of blocks, which page, terminal and Markdown only lay out."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.report.decision.cells import metric_sign, savings_table, speed_table, stability_table
from sngd_tune.report.decision.figures import ratio_figure
from sngd_tune.report.decision.language import Language
from sngd_tune.report.decision.rule import ADOPT_SHARE, MIN_WORKLOADS, Criterion, Ruling
from sngd_tune.report.decision.values import Decision, Evidence, Remark
from sngd_tune.report.page import FigureBlock, TableBlock
from sngd_tune.report.vector import svg_of

__all__ = ["ONE_SHEET", "Bullets", "Document", "Part", "decision_dict", "document"]


#: With more workloads than this the tables leave no room on a sheet of A4 for what is read first.
ONE_SHEET = 4

_TABLES = ("speed", "savings", "stability")


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]
    kind = "bullets"


@dataclass(frozen=True)
class Part:
    """A part of a document under its heading.

    Attributes:
        name: of the heading in the catalogues.
        title: the heading.
        blocks: what it says.
        wide: whether it takes the whole width of a page; two that do not stand side by side.
        sheet: that it is printed on, from 1; a later one begins on a new page.
    """

    name: str
    title: str
    blocks: Sequence[TableBlock | FigureBlock | Bullets]
    wide: bool = False
    sheet: int = 1


@dataclass(frozen=True)
class Document:
    """The report in one language.

    Attributes:
        language: its code.
        verdict: value of the `Verdict`.
        headline: the verdict in a sentence; where the candidate is behind, it says so first.
        title, subtitle: of the report.
        parts: in reading order.
    """

    language: str
    verdict: str
    headline: str
    title: str
    subtitle: str
    parts: Sequence[Part]

    @property
    def rows(self) -> list[list[Part]]:
        """The parts as a page lays them out: a wide one alone, narrow ones in two columns."""
        groups = itertools.groupby(self.parts, key=lambda part: (part.sheet, part.wide and part.name))
        return [list(row) for _, row in groups]


def decision_dict(decision: Decision, told: Document) -> dict[str, Any]:
    """Plain values for JSON: the decision, and its first line in a language."""
    return {**decision.to_dict(), "headline": told.headline}


def document(decision: Decision, language: Language) -> Document:
    """Say a decision in a language."""
    say, ruling = language.say, decision.ruling
    tables = {
        "speed": speed_table(decision, language),
        "savings": savings_table(decision, language),
        "stability": stability_table(decision, language),
    }
    parts = [
        Part("speed", say("sections.speed"), [tables["speed"]], wide=True),
        Part("figure", say("figure.title"), _figure(decision, language)),
        Part("reasons", say("sections.reasons"), [Bullets(_reasons(ruling, language))]),
        Part("savings", say("sections.savings"), [tables["savings"]], wide=True),
        Part("stability", say("sections.stability"), [tables["stability"]], wide=True),
        Part("next", say("sections.next"), _sentences(decision.next_stage, decision, language)),
        Part("risks", say("sections.risks"), _sentences(decision.risks, decision, language)),
        Part("unknown", say("sections.unknown"), _sentences(decision.unknown, decision, language)),
        Part("basis", say("sections.basis"), [Bullets(_basis(decision, language))], wide=True),
    ]
    if len(decision.evidence) > ONE_SHEET:
        parts = _on_two_sheets(parts)
    return Document(
        language=language.code,
        verdict=ruling.verdict,
        headline=headline(decision, language),
        title=say("title", comparison=decision.comparison),
        subtitle=say("subtitle", candidate=decision.candidate, date=decision.basis.created),
        parts=[part for part in parts if part.blocks],
    )


def _on_two_sheets(parts: Sequence[Part]) -> list[Part]:
    """Verdict, figure, rule and what to know on the first; the tables, as long as they get, from the second on."""
    first = [part for part in parts if part.name not in _TABLES]
    return [*first, *(dataclasses.replace(part, sheet=2) for part in parts if part.name in _TABLES)]


def headline(decision: Decision, language: Language) -> str:
    """The verdict and the standings that it comes from, those that speak against the candidate first."""
    ruling, of = decision.ruling, len(decision.evidence)
    clauses = [
        language.say(
            f"clause{'_all' if len(labels) == of > 2 else ''}.{standing}", n=len(labels), of=of, workloads=labels
        )
        for standing in ("behind", "ahead", "open")
        if (labels := getattr(ruling, standing))
    ]
    if any(each.name == "complete" and not each.met for each in ruling.criteria):
        clauses.append(language.say("clause.unfinished"))
    verdict = language.say(f"verdict.{ruling.verdict}", candidate=decision.candidate)
    told = language.say("clause_separator").join(clauses or [language.say("clause.nothing")])
    return language.say("headline", verdict=verdict, clauses=told)


def _figure(decision: Decision, language: Language) -> list[FigureBlock]:
    figure = ratio_figure(decision, language)
    if figure is None:
        return []
    caption = language.say("captions.figure", candidate=decision.candidate)
    return [FigureBlock(svg_of(figure), caption, caption)]


def _reasons(ruling: Ruling, language: Language) -> list[str]:
    rule = language.say("rule.text", workloads=MIN_WORKLOADS, share=ADOPT_SHARE)
    return [*(_criterion(each, language) for each in ruling.criteria), rule]


def _criterion(criterion: Criterion, language: Language) -> str:
    text = language.say(f"criterion.{criterion.name}", found=criterion.found, wanted=criterion.wanted)
    return language.say("criterion.met" if criterion.met else "criterion.unmet", text=text)


def _sentences(remarks: Sequence[Remark], decision: Decision, language: Language) -> list[Bullets]:
    return [Bullets([_sentence(each, decision, language) for each in remarks])] if remarks else []


def _sentence(remark: Remark, decision: Decision, language: Language) -> str:
    workloads = remark.values.get("workloads")
    named = {"workloads": _labels(workloads, decision, language)} if isinstance(workloads, list) else {}
    return language.say(remark.key, **{**remark.values, **named})


def _labels(workloads: Sequence[str], decision: Decision, language: Language) -> Sequence[str]:
    """Their labels; one word where they are all of several."""
    every = len(workloads) == len(decision.evidence) > 2
    return [language.say("words.all")] if every else workloads


def _basis(decision: Decision, language: Language) -> list[str]:
    basis, say = decision.basis, language.say
    targets = [_target(each, language) for each in decision.evidence]
    versions = language.list([f"{name} {version}" for name, version in basis.versions.items()])
    return [
        say("basis.targets", targets=language.list(targets)),
        say(
            "basis.effort",
            trials=basis.trials,
            trainings=basis.trainings,
            seconds=basis.device_seconds,
            hosts=len(basis.hosts),
        ),
        _machine(decision, language),
        say("basis.versions", versions=versions),
        _terms(decision, language),
    ]


def _target(each: Evidence, language: Language) -> str:
    metric, value = language.say(f"metric.{each.target.metric}"), f"{each.target.value:g}"
    named = {"workload": each.workload, "metric": metric, "sign": metric_sign(each.target.metric), "value": value}
    return language.say("basis.target", **named, seconds=each.budget)


def _machine(decision: Decision, language: Language) -> str:
    machine = decision.basis.machine
    if machine is None:
        return language.say("basis.machine_unknown")
    gpus = language.list(machine.gpus) if machine.gpus else language.say("basis.none")
    named: dict[str, Any] = {"cpu": machine.cpu, "cores": machine.cores, "memory": machine.memory_bytes}
    return language.say("basis.machine", **named, gpus=gpus, system=machine.system)


def _terms(decision: Decision, language: Language) -> str:
    terms, none = decision.terms, language.say("basis.not_given")
    if terms.prices.device_hour is None and terms.prices.kwh is None and terms.trainings_per_month is None:
        return language.say("basis.no_terms")
    prices = [
        language.money(price, terms.prices.currency) if price is not None else none
        for price in (terms.prices.device_hour, terms.prices.kwh)
    ]
    rate = none if terms.trainings_per_month is None else language.count(terms.trainings_per_month, "month")
    return language.say("basis.terms", rate=rate, device=prices[0], kwh=prices[1])

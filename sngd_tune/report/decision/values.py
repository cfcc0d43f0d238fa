"""What a decision rests on, as values: `Decision` and its parts. No words: `document` says them in a language."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sngd_tune.energy.cost import Amounts, Prices, Usage
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.attempts import Attempts
from sngd_tune.records.machine import Machine
from sngd_tune.records.target import Target
from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.comparison.stability import Stability
from sngd_tune.report.comparison.values import ToTarget, plain
from sngd_tune.report.decision.rule import Ruling, Standing
from sngd_tune.report.statistics import Difference

__all__ = [
    "DECISION_VERSION",
    "Basis",
    "Decision",
    "Duel",
    "Economy",
    "Evidence",
    "Range",
    "Remark",
    "Terms",
]

#: Version of `Decision.to_dict`.
DECISION_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What only the user knows: prices, and how many trainings of each workload a month has (> 0; None: not said).

    Raises:
        ConfigurationError: the rate is not a finite number > 0, or the currency no code of ISO 4217.
    """

    prices: Prices = field(default_factory=lambda: Prices(currency="EUR"))
    trainings_per_month: float | None = None

    def __post_init__(self) -> None:
        from babel.numbers import is_currency

        rate, currency = self.trainings_per_month, self.prices.currency
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ConfigurationError(
                f"trainings_per_month={rate}: must be a finite number > 0; leave it out if unknown"
            )
        if not is_currency(currency):
            raise ConfigurationError(f"currency={currency!r}: no code of ISO 4217; take one such as EUR, USD or JPY")


@dataclass(frozen=True, kw_only=True)
class Duel:
    """The candidate against one baseline on one workload.

    Attributes:
        baseline: its label.
        seconds: the baseline's, to the target; None without a run.
        ratio: of the seconds, candidate over baseline; None without a pair.
        difference: of the main test metric, candidate − baseline; None where nothing was tested.
        stability: the baseline's.
    """

    baseline: str
    seconds: ToTarget | None
    ratio: Ratio | None
    difference: Difference | None
    stability: Stability


@dataclass(frozen=True, kw_only=True)
class Range:
    """The interval of each of some amounts, and what it covers.

    An end is infinite, in JSON None, where it is a miss, or, of a break-even, where nothing may be saved.
    """

    low: Amounts
    high: Amounts
    coverage: float


@dataclass(frozen=True, kw_only=True)
class Economy:
    """What the candidate saves against the best baseline of a workload.

    Attributes:
        obstacle: why nothing can be computed: a side misses the target in its median seed, or has no run.
        training, baseline_training: device seconds and energy of one training to the target, medians over the seeds.
        tuning, baseline_tuning: of the search and of the re-trainings of its winners, what was lost there and trained
            again included as far as it is known.
        energy: whether the energies can be compared, and how far they are to be trusted.
        saved: with each training, medians over the pairs of seeds; negative where the candidate takes more.
        saved_interval: None with too few pairs; so are the other intervals.
        shown: names of the amounts whose interval leaves 0 out: that something is saved, or lost, is more than chance.
        saved_per_month: at the user's rate; None where that is not known.
        break_even: trainings that pay back all of the candidate's tuning, as if the baseline's had cost nothing.
        break_even_extra: trainings that pay back what the candidate's tuning took more than the baseline's.
        never: names of the amounts whose `break_even` is infinite.
        cycles_per_week, baseline_cycles_per_week: whole cycles of tuning and confirmation that one device has time for
            in a week, if every training ended at the target.
    """

    obstacle: Literal["missed", "baseline_missed"] | None
    training: Usage | None
    baseline_training: Usage | None
    tuning: Usage
    baseline_tuning: Usage
    energy: Literal["measured", "estimated", "unknown", "mixed"]
    saved: Amounts | None
    saved_interval: Range | None
    shown: tuple[str, ...]
    saved_per_month: Amounts | None
    saved_per_month_interval: Range | None
    break_even: Amounts | None
    break_even_interval: Range | None
    break_even_extra: Amounts | None
    never: tuple[str, ...]
    cycles_per_week: float | None
    baseline_cycles_per_week: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One workload.

    Attributes:
        workload: its label.
        target: what a training had to reach.
        budget: seconds of training that each training was given.
        standing: of the candidate, by the rule.
        seconds: the candidate's, to the target; None without a run.
        stability: the candidate's; None where it does not run here.
        best: against the baseline with the lowest median time; None without a baseline that was trained again.
        reference: against AdamW; None where that was not compared.
        slower_than, worse_than: baselines shown to be faster, and to be better in the test metric.
        economy: against the best baseline; None without one.
        seeds_wanted: seeds with which an open workload would be decided at even odds, if later seeds divide as these
            did; None where it is not open, or no reasonable number would do.
    """

    workload: str
    target: Target
    budget: float
    standing: Standing
    seconds: ToTarget | None
    stability: Stability | None
    best: Duel | None
    reference: Duel | None
    slower_than: tuple[str, ...]
    worse_than: tuple[str, ...]
    economy: Economy | None = None
    seeds_wanted: int | None = None


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something to know, as a key of the catalogues and the values that its sentence takes."""

    key: str
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the figures rest on.

    Attributes:
        machine: where the first study began; None where it was not recorded.
        hosts: that recorded trials.
        versions: of Python and of the packages that decide a result; ``sngd_tune`` with its commit.
        created: when the comparison began, UTC in Unix seconds.
        trials, trainings: of the searches, and of the winners on fresh seeds.
        attempts: at all of them; of those that were cut off, what they used after their last report is not known.
        device_seconds: of all of them, with what was lost and trained again.
    """

    machine: Machine | None
    hosts: tuple[str, ...]
    versions: Mapping[str, str]
    created: float
    trials: int
    trainings: int
    device_seconds: float
    attempts: Attempts = field(default_factory=Attempts)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict on a comparison with everything that it came from.

    Attributes:
        comparison: its name.
        candidate: the method in question.
        ruling: the verdict and the criteria.
        evidence: one entry a workload.
        terms: of the user.
        next_stage: what an extended trial would have to show; empty with another verdict.
        risks: what speaks against relying on the verdict.
        unknown: what was not measured or not said.
        basis: machine, versions, trials.
    """

    comparison: str
    candidate: str
    ruling: Ruling
    evidence: Sequence[Evidence]
    terms: Terms
    next_stage: Sequence[Remark]
    risks: Sequence[Remark]
    unknown: Sequence[Remark]
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite becomes None, as in `ComparisonReport.to_dict`."""
        return {"schema": DECISION_VERSION, **plain(self)}

import math

import pytest

from sngd_tune.records.outcome import Outcome
from sngd_tune.report.comparison.ratios import paired_ratio
from sngd_tune.report.comparison.summary import summarize_comparison
from sngd_tune.report.comparison.values import Run
from sngd_tune.report.decision.evidence import seeds_wanted
from sngd_tune.report.decision.values import Terms
from tests.report.comparison.cells import FAST, MISSING, SLOW, method, workload
from tests.report.decision.comparisons import BASIS, TERMS, decision, lost, powered, undecided, won


def runs(*seconds: float) -> list[Run]:
    return [Run(seed=seed, outcome=Outcome.COMPLETED, seconds=each, steps=each) for seed, each in enumerate(seconds)]


def keys(remarks: object) -> list[str]:
    return [each.key for each in remarks]  # type: ignore[attr-defined]


@pytest.mark.parametrize("faster", [7, 8, 9])
def test_the_seeds_that_are_wanted_decide_if_they_divide_as_those_so_far(faster: int) -> None:
    """Of ten seeds, so many are faster by a third, and the others slower."""
    n = seeds_wanted(runs(*[1.0] * faster, *[2.0] * (10 - faster)), runs(*[1.5] * 10))
    assert n is not None
    slower = round((1 - faster / 10) * n)
    times = {seed: 2.0 + seed / 100 if seed < slower else 1.0 - seed / 1000 for seed in range(n)}
    ratio = paired_ratio(times, dict.fromkeys(range(n), 1.5))
    assert ratio is not None
    assert ratio.verdict == "faster"


@pytest.mark.parametrize("faster", [4, 5, 6])
def test_a_tendency_that_fifty_seeds_do_not_settle_wants_none(faster: int) -> None:
    assert seeds_wanted(runs(*[1.0] * faster, *[2.0] * (10 - faster)), runs(*[1.5] * 10)) is None


def test_too_few_seeds_that_all_agree_want_five() -> None:
    assert seeds_wanted(runs(1.0, 1.0, 1.0), runs(2.0, 2.0, 2.0)) == 5


def test_ties_and_misses_on_both_sides_are_no_tendency() -> None:
    assert seeds_wanted(runs(1.0, math.inf), runs(1.0, math.inf)) is None


def test_savings_are_counted_per_training_per_month_and_against_all_tuning() -> None:
    own, other = powered(method(FAST), 100.0), powered(method(SLOW), 200.0)
    economy = decision(workload(sngd=own, adamw=other)).evidence[0].economy
    assert economy is not None
    assert economy.energy == "measured"
    assert economy.shown == ("seconds", "joules", "cost")
    seconds, joules = 1.0, 200 * 2.1 - 100 * 1.1  # medians over the pairs of seeds
    assert economy.saved is not None
    assert economy.saved.seconds == pytest.approx(seconds)
    assert economy.saved.joules == pytest.approx(joules)
    assert economy.saved.cost == pytest.approx(seconds * 3.6 / 3600 + joules / 3.6e6 * 0.36)
    assert economy.saved_per_month is not None
    assert economy.saved_per_month.seconds == pytest.approx(1000 * seconds)
    tuning = 9 * 10.0  # four trials and five seeds of ten seconds
    assert economy.tuning.seconds == tuning
    assert economy.break_even is not None
    assert economy.break_even.seconds == math.ceil(tuning / seconds)
    assert economy.break_even_extra is not None
    assert economy.break_even_extra.seconds == 0.0


def test_a_cycle_is_what_tuning_and_confirmation_take_to_their_targets() -> None:
    economy = decision(workload(sngd=method(FAST), adamw=method(SLOW))).evidence[0].economy
    assert economy is not None
    search = sum(0.9 * n for n in (1, 2, 3, 4))
    assert economy.cycles_per_week == pytest.approx(7 * 86400 / (search + sum(FAST)))
    assert economy.baseline_cycles_per_week == pytest.approx(
        7 * 86400 / (sum(1.9 * n for n in (1, 2, 3, 4)) + sum(SLOW))
    )


def test_a_training_that_saves_nothing_never_pays_back() -> None:
    found = decision(workload(sngd=method(SLOW), adamw=method(FAST)))
    assert found.evidence[0].economy is not None
    assert "seconds" in found.evidence[0].economy.never
    assert found.to_dict()["evidence"][0]["economy"]["break_even"]["seconds"] is None


def test_a_missed_target_has_no_saving() -> None:
    sides = {"missed": (MISSING, FAST), "baseline_missed": (FAST, MISSING)}
    for obstacle, (own, other) in sides.items():
        economy = decision(workload(sngd=method(own), adamw=method(other))).evidence[0].economy
        assert economy is not None
        assert (economy.obstacle, economy.saved, economy.break_even) == (obstacle, None, None)


@pytest.mark.parametrize(
    ("own", "other", "state"),
    [("nvml", "nvml", "measured"), ("estimate", "estimate", "estimated"), ("nvml", "estimate", "mixed")],
)
def test_energy_is_compared_within_one_source_alone(own: str, other: str, state: str) -> None:
    found = decision(workload(sngd=powered(method(FAST), 10.0, own), adamw=powered(method(SLOW), 10.0, other)))
    economy = found.evidence[0].economy
    assert economy is not None
    assert economy.energy == state
    assert economy.saved is not None
    assert (economy.saved.joules is None) == (economy.saved.cost is None) == (state == "mixed")
    assert (f"unknown.energy_{state}" in keys(found.unknown)) == (state != "measured")


def test_an_old_ledger_has_no_energy_and_so_no_cost_of_it() -> None:
    found = decision(*won())
    assert keys(found.unknown) == ["unknown.energy_unknown"]
    assert found.evidence[0].economy is not None
    assert found.evidence[0].economy.saved is not None
    assert found.evidence[0].economy.saved.cost is None


def test_what_the_user_did_not_say_is_unknown_and_not_guessed() -> None:
    found = decision(*won(), terms=Terms())
    assert keys(found.unknown)[:3] == ["unknown.no_rate", "unknown.no_device_price", "unknown.no_energy_price"]
    assert found.evidence[0].economy is not None
    assert found.evidence[0].economy.saved_per_month is None


def test_risks_are_derived_from_the_data_the_gravest_first() -> None:
    found = keys(decision(*lost()).risks)
    assert found[:2] == ["risk.slower", "risk.slower"]
    assert {"risk.few_seeds", "risk.few_trials", "risk.short_trainings", "risk.one_machine", "risk.cpu_only"} < set(
        found
    )
    assert "risk.few_workloads" not in found


def test_enough_seeds_are_no_risk() -> None:
    times = {seed: 1.0 + seed / 100 for seed in range(12)}
    slower = {seed: 2 * seconds for seed, seconds in times.items()}
    results = [workload(sngd=method(times, trials=20), adamw=method(slower, trials=20))]
    assert not {"risk.few_seeds", "risk.few_trials"} & set(keys(decision(*results).risks))


def test_only_an_extended_trial_has_a_next_stage() -> None:
    assert [len(decision(*results).next_stage) for results in (won(), lost())] == [0, 0]
    assert keys(decision(*undecided()).next_stage) == ["next.ahead", "next.no_tendency"]
    four_of_five = workload(sngd=method((1.0, 1.2, 2.5, 1.1, 1.2)), adamw=method(SLOW))
    assert keys(decision(four_of_five).next_stage) == ["next.workloads", "next.ahead", "next.seeds"]


def test_the_report_of_a_comparison_and_its_decision_agree_on_a_loss() -> None:
    report = summarize_comparison("trial", "sngd", lost())
    assert report.result == "lost"
    assert decision(*lost(), basis=BASIS, terms=TERMS).ruling.behind == ("a", "b")

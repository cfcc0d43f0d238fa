"""Planning from the fits of a scaling study: plan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sngd_tune.cli.app import app
from sngd_tune.cli.options import DataDir, Format, OutputFormat, path_from
from sngd_tune.display import print_json, print_table, say
from sngd_tune.errors import ConfigurationError

if TYPE_CHECKING:
    from sngd_tune.scaling.curves import Curves
    from sngd_tune.scaling.plan import Estimate, Plan

_DEVICES = ("workers", "weak_workers")


@app.command()
def plan(
    file: Annotated[
        Path, typer.Argument(metavar="FITS.json", help="Fits of a scaling study: DIR/fits.json, see sngd-tune scale.")
    ],
    sizes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="AXIS=NUMBER", help="Size to plan for, such as width=4096. Repeatable."),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Of the study; default: all. Repeatable.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Trainings of the study; 1 plans a single one.")] = 1,
    workers: Annotated[int, typer.Option("--workers", help="Trainings at a time, each on devices of its own.")] = 1,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Steps of a training; default: as many as the study's target takes.")
    ] = None,
    device_hour: Annotated[
        float | None, typer.Option("--price-per-device-hour", metavar="X", help="Without it no cost is told.")
    ] = None,
    currency: Annotated[str, typer.Option("--currency", help="Of the price; only shown.")] = "EUR",
    workload: Annotated[
        str | None, typer.Option("--workload", help="Whose bytes are predicted; default: that of the study.")
    ] = None,
    price: Annotated[
        bool, typer.Option("--time", help="Also time the operations of a step of that size on this machine.")
    ] = False,
    data_dir: DataDir = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Say what a training or a study on a larger model or cluster would take, with error bars."""
    from sngd_tune.energy.cost import Prices
    from sngd_tune.scaling.curves import Curves
    from sngd_tune.scaling.plan import Wish, make_plan

    curves, wanted = Curves.read(file), _sizes(sizes or [])
    devices = next((int(wanted[axis]) for axis in _DEVICES if axis in wanted), 1)
    wish = Wish(
        sizes=wanted,
        trials=trials,
        workers=workers,
        steps=steps,
        devices=devices,
        prices=Prices(device_hour=device_hour, currency=currency),
    )
    plans = [make_plan(curves, method, wish) for method in methods or curves.methods]
    name, folder = workload or curves.workload, data_dir or path_from("SNGD_TUNE_DATA")
    modelled = [_modelled(curves, each.method, name, wanted, folder if price else None, price) for each in plans]
    if output is Format.JSON:
        rows = [{**each.to_dict(), "cost_model": model} for each, model in zip(plans, modelled, strict=True)]
        asked = {"sizes": wanted, "trials": trials, "workers": workers, "steps": steps, "devices": devices}
        money = {"price_per_device_hour": device_hour, "currency": currency}
        print_json({"schema": 1, "fits": file, "workload": name, **asked, **money, "plans": rows})
    else:
        _show(curves, plans, modelled, currency)
    for note in (*_notes(plans), *_off(plans, modelled)):
        say(note)


def _sizes(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for each in given:
        axis, _, value = each.partition("=")
        try:
            found[axis] = float(value)
        except ValueError as error:
            raise ConfigurationError(f"--set {each}: must be an axis and a number, such as width=4096") from error
    return found


def _modelled(
    curves: "Curves", method: str, workload: str, sizes: Mapping[str, float], data_dir: Path | None, price: bool
) -> dict[str, Any]:
    """What the cost model says: bytes, and, where it is asked for, seconds of a step on this machine."""
    from sngd_tune.scaling.priced import price_step, sized_trial
    from sngd_tune.sizing.room import predicted_bytes

    plain = {axis: value for axis, value in curves.base.items() if isinstance(value, int | float)}
    sized = sized_trial(workload, curves.methods[method], {**plain, **sizes})
    found: dict[str, Any] = {"bytes": predicted_bytes(sized.trial, sized.workload)}
    if price:
        try:
            found["step"] = vars(price_step(sized, data_dir))
        except ConfigurationError as error:
            say(f"{method}: {error}")
    return found


def _show(curves: "Curves", plans: Sequence["Plan"], modelled: Sequence[Mapping[str, Any]], currency: str) -> None:
    from sngd_tune.report.verdict import duration

    def amount(value: float) -> str:
        return f"{value:,.4g}"

    rows: list[tuple[str, ...]] = [
        ("a step", *(_cell(each.step_seconds, duration) for each in plans)),
        ("a training", *(_cell(each.training_seconds, duration) for each in plans)),
        ("the study", *(_cell(each.study_seconds, duration) for each in plans)),
        ("device-hours", *(_cell(each.device_hours, amount) for each in plans)),
        (f"cost, {currency}", *(_cell(each.cost, amount) for each in plans)),
        ("memory of a worker", *(_cell(each.memory_bytes, _gigabytes) for each in plans)),
        ("of it at least (from shapes)", *(_gigabytes(each["bytes"]) for each in modelled)),
    ]
    if any("step" in each for each in modelled):
        timed = [duration(each["step"]["seconds"]) if "step" in each else "" for each in modelled]
        rows.append(("a step here, by the cost model", *timed))
    columns = ("figure (95 % interval)", *(each.method for each in plans))
    print_table(f"plan on {curves.workload}", columns, rows)


def _cell(each: "Estimate | None", text: Any) -> str:
    if each is None:
        return "not known"
    return f"{text(each.value)} ({text(each.low)} to {text(each.high)}){' extrapolated' if each.beyond else ''}"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def _notes(plans: Sequence["Plan"]) -> list[str]:
    """What the figures rest on."""
    notes = [f"{each.method}: {reason}" for each in plans for reason in each.missing]
    beyond = dict.fromkeys(sentence for each in plans for sentence in each.extrapolated)
    notes += [f"extrapolated: {sentence}; the interval trusts the law's form" for sentence in beyond]
    notes += [
        f"{each.method}: {each.measure}: laws of {' and '.join(each.axes)} multiply {each} on the study's grid"
        f" ({each.points} points); the interval is widened by it"
        for plan in plans
        for each in plan.products
    ]
    assumed = dict.fromkeys(" and ".join(axes) for each in plans for axes in each.assumed)
    notes += [f"{axes}: were changed one at a time; that their factors multiply is assumed" for axes in assumed]
    notes.append("not in it: starts and evaluation, trials that stop early, idle time between trials")
    return notes


def _off(plans: Sequence["Plan"], modelled: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where what was timed at the size itself lies outside of what the laws say."""
    return [
        f"{plan.method}: the step timed here lies outside of the law's interval: another machine, or the law ends"
        for plan, model in zip(plans, modelled, strict=True)
        if "step" in model
        and plan.step_seconds is not None
        and not plan.step_seconds.low <= model["step"]["seconds"] <= plan.step_seconds.high
    ]

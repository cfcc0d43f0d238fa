"""Measurements: bench step, cost, roots, convergence, auto, trials."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from sngd_tune.cli.app import Code, app
from sngd_tune.cli.options import Address, DataDir, Format, OutputFormat, new_directory, path_from
from sngd_tune.display import print_json, print_table, say

bench = typer.Typer(help="Measure what SNGD and a study cost, as ratios taken in one process.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("step")
def bench_step(
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="mnist_mlp, cnn, lstm or transformer; default: all. Repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="CPU threads; default: 1 and 2. Repeatable.")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Blocks of 50 steps; slow tasks get a fraction of them.")
    ] = 25,
    peers: Annotated[bool, typer.Option("--peers", help="Also time the optimizers of other packages.")] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Time of an SNGD step over one of torch.optim.SGD, for each task and granularity."""
    from sngd_tune.bench.step import measure
    from sngd_tune.bench.tasks import TASKS

    rows = measure(rounds, threads or (1, 2), tasks or tuple(TASKS), peers, announce=say)
    _show_bench("time of a step, as a ratio", rows, output)


@bench.command("cost")
def bench_cost(
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="mnist_mlp, cnn, lstm or transformer; default: all. Repeatable.")
    ] = None,
    workloads: Annotated[
        list[str] | None, typer.Option("--workload", help="Instead of tasks, on its own data. Repeatable.")
    ] = None,
    data_dir: DataDir = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples of a workload's batch.")] = 128,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Calibrations, each with a block of steps.")] = 5,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Step time that the cost model of auto-selection predicts, over the measured one."""
    from sngd_tune.bench.cost import measure
    from sngd_tune.bench.tasks import TASKS

    folder = data_dir or os.environ.get("SNGD_TUNE_DATA")
    chosen = tasks or (() if workloads else tuple(TASKS))
    rows = measure(chosen, workloads or (), Path(folder) if folder else None, rounds, batch_size, threads, announce=say)
    _show_bench("predicted step time over the measured one", rows, output)


@bench.command("roots")
def bench_roots(
    sizes: Annotated[
        list[int] | None,
        typer.Option("--sizes", min=1, help="Size of the matrix; default: 64 256 512 1024 2048. Repeatable."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Roots of each kind; large sizes get fewer.")] = 25,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Time and error of each root over the size of the matrix."""
    from sngd_tune.bench.roots import SIZES, measure

    rows = measure(sizes or SIZES, rounds, threads, announce=say)
    _show_bench("time of a root, and its error", rows, output)


@bench.command("convergence")
def bench_convergence(
    workloads: Annotated[
        list[str] | None, typer.Option("--workload", help="Default: one of each kind of layer. Repeatable.")
    ] = None,
    data_dir: DataDir = None,
    steps: Annotated[int, typer.Option("--steps", min=20, help="Of training, for each candidate.")] = 600,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples per step.")] = 128,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Steps and seconds to the loss that the best of plain SGD and AdamW ends at: what the defaults were chosen by."""
    from sngd_tune.bench.convergence import WORKLOADS, measure

    folder = data_dir or os.environ.get("SNGD_TUNE_DATA")
    rows = measure(workloads or WORKLOADS, Path(folder) if folder else None, steps, batch_size, threads, announce=say)
    _show_bench("steps and seconds to the target", rows, output)


@bench.command("auto")
def bench_auto(
    workloads: Annotated[
        list[str] | None, typer.Option("--workload", help="With a study in --spaces; default: all. Repeatable.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="Of each training; default: by workload, 1 to 30.")
    ] = None,
    plain_trials: Annotated[int, typer.Option("--plain-trials", min=1, help="Of the plain search.")] = 40,
    auto_trials: Annotated[int, typer.Option("--auto-trials", min=1, help="Of the search around a selection.")] = 10,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Fresh ones, on which winners are trained again.")] = 3,
    probe_seconds: Annotated[float, typer.Option("--probe-seconds", min=5, help="Of a selection, about.")] = 60.0,
    spaces: Annotated[Path, typer.Option("--spaces", help="Folder of the plain studies.")] = Path("search_spaces"),
    data_dir: DataDir = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Of all runs; what is done there is not repeated. Default: a new one.")
    ] = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Loss of selected settings, with a short search and without, over that of a plain search's winner."""
    from sngd_tune.bench.auto import PACES, Effort, measure
    from sngd_tune.bench.auto_figures import missed

    effort = Effort(
        seconds=seconds,
        plain_trials=plain_trials,
        auto_trials=auto_trials,
        seeds=seeds,
        probe_seconds=probe_seconds,
    )
    folder = data_dir or path_from("SNGD_TUNE_DATA")
    directory = new_directory(directory, "bench-auto")
    say(f"runs are in {directory}; the same command with --dir {directory} goes on where this one ends")
    with redirect_stdout(sys.stderr):
        rows = measure(workloads or tuple(PACES), spaces, directory, folder, effort, announce=say)
    table = output is Format.TABLE
    shown = [{k: v for k, v in row.items() if not (table and isinstance(v, list))} for row in rows]  # by seed: too wide
    _show_bench("a plain search, selected settings, and a search around them", shown, output)
    failures = [text for row in rows for text in missed(row)]
    for text in failures:
        say(f"missed: {text}")
    if failures:
        raise typer.Exit(Code.FAILED)


@bench.command("trials")
def bench_trials(
    trials: Annotated[
        int, typer.Option("--trials", min=2, help="Of the study; with --concurrent whole rounds of them.")
    ] = 60,
    concurrent: Annotated[
        int | None,
        typer.Option(
            "--concurrent", min=1, help="Trials at a time, which sleep and share the CPUs; default: they train."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds-per-trial", min=0.01, help="That each sleeps.")] = 2.0,
    address: Address = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Wall-clock of a study over the same trials in a bare loop, or of sleeping trials over the ideal."""
    from sngd_tune.bench.trials import measure, measure_sleeping

    with redirect_stdout(sys.stderr):  # what Ray prints of its workers is no data
        rows = measure(trials) if concurrent is None else measure_sleeping(trials, concurrent, seconds, address)
    _show_bench("time of a study, as a ratio", rows, output)


def _show_bench(title: str, rows: Sequence[Mapping[str, Any]], output: Format) -> None:
    if output is Format.JSON:
        print_json({"schema": 1, "rows": rows})
    else:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        print_table(title, columns, [[row.get(column) for column in columns] for row in rows])

"""Measurements: bench step, roots, convergence, trials."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sngd_tune.cli.app import app
from sngd_tune.cli.options import DataDir, Format, OutputFormat
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


@bench.command("trials")
def bench_trials(output: OutputFormat = Format.TABLE) -> None:
    """Wall-clock of a study over the same trials in a bare loop."""
    from sngd_tune.bench.trials import measure

    _show_bench("time of a study, as a ratio", measure(), output)


def _show_bench(title: str, rows: Sequence[Mapping[str, Any]], output: Format) -> None:
    if output is Format.JSON:
        print_json({"schema": 1, "rows": rows})
    else:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        print_table(title, columns, [[row.get(column) for column in columns] for row in rows])

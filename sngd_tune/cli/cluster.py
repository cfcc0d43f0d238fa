"""Clusters: cluster render, cluster check, cluster leave."""

import itertools
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sngd_tune.cli.app import Code, app
from sngd_tune.cli.options import Address, Format, OutputFormat
from sngd_tune.display import print_json, print_table, say
from sngd_tune.errors import ConfigurationError

if TYPE_CHECKING:
    from sngd_tune.cluster.answers import Answers

cluster = typer.Typer(no_args_is_help=True, help="Files that bring up a Ray cluster, and whether they keep it closed.")
app.add_typer(cluster, name="cluster")


class Place(StrEnum):
    """Where a cluster can run."""

    KUBERAY = "kuberay"
    AWS = "aws"
    GCP = "gcp"
    SLURM = "slurm"


@cluster.command("render")
def render_files(
    place: Annotated[Place, typer.Argument(help="Where the cluster is to run.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An answer, such as workers=8. Repeatable.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option("--answers", metavar="FILE", help="Answers as YAML; --set wins over it.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print what is asked, with the defaults; write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Fill in the files that bring up a cluster, and print the commands that come next."""
    if show:
        _show_questions(place, output)
        return
    if out is None:
        raise ConfigurationError(f"render {place}: needs a folder; name it with --out")
    from sngd_tune.cluster.render import render, write

    rendered = render(place, _answers(place, answers, overrides), out)
    files = write(rendered, out, force=force)
    if output is Format.JSON:
        print_json({"schema": 1, "files": files, "next_steps": rendered.next_steps})
        return
    for path in files:
        say(f"written: {path}")
    say("next:")
    print(rendered.next_steps, end="")


@cluster.command("check")
def check_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Files, or folders of them, that go together.")],
    output: OutputFormat = Format.TABLE,
) -> None:
    """Check that files of a cluster keep it closed: authentication, addresses, limits, images, users, secrets."""
    from sngd_tune.cluster.rules import breaches, read_documents
    from sngd_tune.search.schema import read_text

    documents = [document for path in _below(files) for document in read_documents(str(path), read_text(path))]
    if not documents:
        raise ConfigurationError(
            f"{', '.join(map(str, files))}: nothing that has rules; give Kubernetes objects, a cluster file of"
            " `ray up`, a batch script of Slurm, or a Dockerfile"
        )
    found = breaches(documents)
    if output is Format.JSON:
        print_json({"schema": 1, "documents": len(documents), "rows": [vars(breach) for breach in found]})
    else:
        columns = ("file", "rule", "detail", "remedy")
        print_table(f"{len(documents)} documents", columns, [tuple(vars(breach).values()) for breach in found])
    if found:
        raise typer.Exit(Code.FAILED)


@cluster.command("leave")
def leave_cluster(
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="Until this machine is taken away.")] = 25.0,
    node: Annotated[
        str | None, typer.Option("--node", help="Address or id of the node; default: this machine.")
    ] = None,
    address: Address = "auto",
) -> None:
    """Empty a node that is about to be taken away: its trials save and go on elsewhere, nothing new is placed on it."""
    from sngd_tune.cluster.leave import leave
    from sngd_tune.cluster.session import ray_session

    with ray_session(address):
        if not leave(seconds, node):
            say(f"something still runs here after {seconds:g} s; it goes on from its last checkpoint")
            raise typer.Exit(Code.PARTIAL)


def _show_questions(place: Place, output: Format) -> None:
    from sngd_tune.cluster.answers import questions
    from sngd_tune.cluster.render import PLACES

    rows = list(questions(PLACES[place]))
    columns = ("answer", "default", "meaning")
    if output is Format.JSON:
        print_json({"schema": 1, "rows": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        print_table(f"answers for {place}", columns, rows)


def _answers(place: Place, file: Path | None, overrides: list[str] | None) -> "Answers":
    """The answers of a file under those of the command line, against the place's model."""
    from sngd_tune.cluster.render import PLACES
    from sngd_tune.search.document import read_document
    from sngd_tune.search.schema import read_text, refuse, validated

    text = "{}" if file is None else read_text(file)
    document = read_document(text, str(file or "answers"), overrides or ())
    answers = validated(document, PLACES[place])
    if isinstance(answers, list):
        refuse(document, answers)
    return answers


def _below(paths: list[Path]) -> list[Path]:
    """The files named, and those in folders named."""
    named = (sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths)
    return [path for path in itertools.chain.from_iterable(named) if not path.is_dir()]

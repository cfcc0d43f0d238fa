"""The templates of `cluster/`, filled in for a place: Kubernetes, AWS, Google, Slurm.

A place is a folder there. Each of its files is a Jinja template of the file it becomes, but for those that others
include (``_ray.yaml``), and for ``next-steps.txt``, which is shown and not written. The package has the folders in
`sngd_tune/cluster/templates`, which in the repository are links to `cluster/`.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2

from sngd_tune.atomic import replacing
from sngd_tune.cluster.answers import Answers, AwsAnswers, GcpAnswers, KuberayAnswers, SlurmAnswers
from sngd_tune.cluster.rules import breaches, read_documents
from sngd_tune.errors import ConfigurationError

__all__ = ["PLACES", "TEMPLATES", "Rendered", "render", "write"]

PLACES: dict[str, type[Answers]] = {
    "kuberay": KuberayAnswers,
    "aws": AwsAnswers,
    "gcp": GcpAnswers,
    "slurm": SlurmAnswers,
}

TEMPLATES = Path(__file__).parent / "templates"

_NEXT_STEPS = "next-steps.txt"


@dataclass(frozen=True)
class Rendered:
    """What the answers make of a place.

    Attributes:
        files: text of each file, by its path below the folder that is written.
        next_steps: the commands that come next.
    """

    files: dict[str, str]
    next_steps: str

    @cached_property
    def breaches(self) -> list[str]:
        """The rules that the files break, one line each; empty for the project's own templates."""
        documents = [document for path, text in self.files.items() for document in read_documents(path, text)]
        return [str(breach) for breach in breaches(documents)]


def render(place: str, answers: Answers, out: Path) -> Rendered:
    """Fill in the templates of a place; nothing is written.

    Args:
        place: one of `PLACES`.
        answers: of the place's model.
        out: the folder that the next steps speak of.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # no HTML; what an answer may hold is part of its type
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {**answers.model_dump(), "out": shlex.quote(str(out))}
    texts = {
        path.as_posix(): environment.get_template(f"{place}/{path.as_posix()}").render(values)
        for path in _templates(TEMPLATES / place)
    }
    return Rendered(next_steps=texts.pop(_NEXT_STEPS), files=texts)


def _templates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("_"):
            yield path.relative_to(folder)


def write(rendered: Rendered, out: Path, *, force: bool = False) -> list[Path]:
    """Write the files below `out`, and return their paths.

    Raises:
        ConfigurationError: a file breaks a rule, or is there already and `force` is not given; nothing is written then.
    """
    if rendered.breaches:
        raise ConfigurationError("\n".join(rendered.breaches))
    there = [path for path in rendered.files if (out / path).exists()]
    if there and not force:
        raise ConfigurationError(
            f"{out / there[0]}: is there already; choose another --out, or replace it with --force"
        )
    for path, text in rendered.files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(out / path) as file:
            file.write(text.encode())
    return [out / path for path in rendered.files]

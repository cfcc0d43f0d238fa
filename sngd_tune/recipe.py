"""Settings as a file that trains: what a study found, written as YAML, with the lines that use it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sngd_tune.records.arguments import arguments
from sngd_tune.records.trial import TrialConfig

__all__ = ["recipe", "usage", "write_recipe"]

#: What the training loop has to do beside, where the Fisher matrix is of the model's own targets.
_OBSERVING = (
    "\n# in each step, before loss.backward(): optimizer.observe_outputs(outputs, likelihood)"
    '\n# with the likelihood of the loss: "softmax" (cross-entropy), "gaussian" or "bernoulli"'
)


@dataclass(frozen=True)
class _Constructor:
    """How a method's optimizer is made.

    Attributes:
        section: of the recipe that has its arguments.
        imports: lines that bring it, and YAML.
        call: the expression.
    """

    section: str
    imports: str
    call: str


def _torch(name: str) -> _Constructor:
    return _Constructor("torch", "import torch, yaml", f'torch.optim.{name}(model.parameters(), **best["torch"])')


def _other(section: str, module: str, name: str, of: str) -> _Constructor:
    return _Constructor(section, f"import yaml\nfrom {module} import {name}", f'{name}({of}, **best["{section}"])')


_CONSTRUCTORS: Mapping[str, _Constructor] = {
    "sngd": _Constructor(
        "sngd",
        "import yaml\nfrom sngd_tune import SNGD",
        'SNGD(model, best["fisher"], **best["sngd"])',
    ),
    "sgd": _torch("SGD"),
    "adamw": _torch("AdamW"),
    "nadamw": _torch("NAdam"),
    "muon": _other("muon", "sngd_tune.methods.muon", "MuonAdamW", "model"),
    "soap": _other("soap", "pytorch_optimizer", "SOAP", "model.parameters()"),
    "exact_ngd": _other("exact_ngd", "sngd_tune.methods.exact_ngd", "ExactNGD", "model"),
}


def recipe(trial: TrialConfig) -> dict[str, Any]:
    """The settings of a trial as plain values: constructor arguments by constructor.

    Keys: ``workload``, ``optimizer``, ``batch_size``, ``epochs``, ``lr_schedule``; then ``sngd`` (of `SNGD`) and
    ``fisher`` (its settings: fields of `FisherSettings`, or patterns of module names with such fields), ``torch`` (of a
    torch optimizer), or the method's own name (of what `usage` imports for it).
    """
    config = trial.optimizer
    head = {
        "workload": trial.workload,
        "optimizer": config.method,
        "batch_size": trial.batch_size,
        "epochs": trial.epochs,
        "lr_schedule": config.lr_schedule,
    }
    if trial.fisher is None:
        return {**head, _CONSTRUCTORS[config.method].section: arguments(config, config.method)}
    base = {"base": config.base, **arguments(config, config.base)}
    return {**head, "sngd": base, "fisher": trial.fisher.to_dict()}


def usage(trial: TrialConfig, path: Path | str) -> str:
    """Python lines that train a model with the recipe at `path`."""
    constructor = _CONSTRUCTORS[trial.optimizer.method]
    first, *others = constructor.imports.splitlines()
    lines = [
        first,
        "from pathlib import Path",
        *others,
        f"best = yaml.safe_load(Path({json.dumps(str(path), ensure_ascii=False)}).read_text())",
        f"optimizer = {constructor.call}",
    ]
    return "\n".join(lines) + (_OBSERVING if trial.needs_likelihood else "")


def write_recipe(path: Path, trial: TrialConfig, origin: str) -> None:
    """Write the recipe of a trial, with where it comes from and how to use it as comments."""
    comments = [origin, "", *usage(trial, path.name).splitlines()]
    text = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    path.write_text(text + yaml.safe_dump(recipe(trial), sort_keys=False), encoding="utf-8")

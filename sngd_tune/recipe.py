"""Settings as a file that trains: what a study found, written as YAML, with the lines that use it."""

import json
from pathlib import Path
from typing import Any

import yaml

from sngd_tune.records.trial import OptimizerConfig, TrialConfig

__all__ = ["recipe", "usage", "write_recipe"]

#: What the training loop has to do beside, where ``G`` is of the model's own targets.
_OBSERVING = (
    "\n# in each step, before loss.backward(): optimizer.observe_outputs(outputs, likelihood)"
    '\n# with the likelihood of the loss: "softmax" (cross-entropy), "gaussian" or "bernoulli"'
)

_TORCH_CLASS = {"sgd": "SGD", "adamw": "AdamW"}


def recipe(trial: TrialConfig) -> dict[str, Any]:
    """The settings of a trial as plain values: constructor arguments by constructor.

    Keys: ``workload``, ``optimizer``, ``batch_size``, ``epochs``, ``lr_schedule``; ``fisher`` (of `FisherSettings`)
    and ``sngd`` (of `SNGD`), or ``torch`` (of the torch optimizer named by ``optimizer``).
    """
    head = {
        "workload": trial.workload,
        "optimizer": trial.optimizer.method,
        "batch_size": trial.batch_size,
        "epochs": trial.epochs,
        "lr_schedule": trial.optimizer.lr_schedule,
    }
    if trial.fisher is None:
        return {**head, "torch": _arguments(trial.optimizer, trial.optimizer.method)}
    base = {"base": trial.optimizer.base, **_arguments(trial.optimizer, trial.optimizer.base)}
    return {**head, "sngd": base, "fisher": trial.fisher.to_dict()}


def usage(trial: TrialConfig, path: Path | str) -> str:
    """Python lines that train a model with the recipe at `path`."""
    read = f"best = yaml.safe_load(Path({json.dumps(str(path), ensure_ascii=False)}).read_text())\n"
    if trial.fisher is None:
        name = _TORCH_CLASS[trial.optimizer.method]
        return (
            "import torch, yaml\nfrom pathlib import Path\n"
            f"{read}"
            f'optimizer = torch.optim.{name}(model.parameters(), **best["torch"])'
        )
    return (
        "import yaml\nfrom pathlib import Path\nfrom sngd_tune import SNGD, FisherSettings\n"
        f"{read}"
        'optimizer = SNGD(model, FisherSettings(**best["fisher"]), **best["sngd"])'
        f"{_OBSERVING if trial.fisher.needs_outputs else ''}"
    )


def write_recipe(path: Path, trial: TrialConfig, origin: str) -> None:
    """Write the recipe of a trial, with where it comes from and how to use it as comments."""
    comments = [origin, "", *usage(trial, path.name).splitlines()]
    text = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    path.write_text(text + yaml.safe_dump(recipe(trial), sort_keys=False), encoding="utf-8")


def _arguments(config: OptimizerConfig, kind: str) -> dict[str, Any]:
    """Arguments that the constructor of this kind of optimizer takes."""
    own = {"momentum": config.momentum} if kind == "sgd" else {"betas": [config.beta1, config.beta2]}
    return {"lr": config.lr, **own, "weight_decay": config.weight_decay}

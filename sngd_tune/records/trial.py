"""`TrialConfig`: one training run, checked once where the flat proposal enters and trusted from there on."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import PARAMETERS, check_value, is_active
from sngd_tune.settings import FisherSettings

__all__ = ["OptimizerConfig", "TrialConfig"]

#: Learning rate of AdamW and of SNGD on it where none is given; torch's own default.
ADAMW_LR = 1e-3

_FISHER_FIELDS = tuple(field.name for field in dataclasses.fields(FisherSettings))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The first-order side of a trial; `form` and `base` have a meaning for ``method="sngd"`` only."""

    method: str
    form: str
    base: str
    lr: float
    lr_schedule: str
    momentum: float
    beta1: float
    beta2: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run: workload, method, settings, length and seed.

    Attributes:
        workload: registered name or ``module:attribute``.
        optimizer: method and first-order hyperparameters.
        fisher: settings of the local Fisher layers; None for the baselines.
        batch_size: examples per step.
        epochs: passes over the training set.
        seed: of initialization, batches and sketches.
        test: whether the test set is evaluated after the last epoch (confirmations only).
        parameters: the flat values that were proposed, as Optuna and MLflow know them.
    """

    workload: str
    optimizer: OptimizerConfig
    fisher: FisherSettings | None
    batch_size: int
    epochs: int
    seed: int
    test: bool = False
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_flat(
        cls, parameters: Mapping[str, Any], *, workload: str, epochs: int, seed: int, test: bool = False
    ) -> "TrialConfig":
        """Validate a flat proposal such as ``{"granularity": "block", "block": 64, "lr": 0.1}``.

        Raises:
            ConfigurationError: an unknown parameter, a value out of range, or one without a meaning beside the others.
        """
        checked = {name: check_value(name, value) for name, value in parameters.items()}
        for name in checked:
            if not is_active(name, checked):
                conditions = " and ".join(f"{parent} in {list(values)}" for parent, values in PARAMETERS[name].when)
                raise ConfigurationError(f"{name}={checked[name]!r}: has a meaning only where {conditions}")
        if epochs < 1:
            raise ConfigurationError(f"epochs={epochs!r}: must be ≥ 1")
        value = {name: checked.get(name, parameter.default) for name, parameter in PARAMETERS.items()}
        if "lr" not in checked and "adamw" in (
            value["optimizer"],
            value["base"] if value["optimizer"] == "sngd" else "",
        ):
            value["lr"] = ADAMW_LR
        optimizer = OptimizerConfig(
            method=value["optimizer"],
            **{
                field.name: value[field.name] for field in dataclasses.fields(OptimizerConfig) if field.name != "method"
            },
        )
        return cls(
            workload=workload,
            optimizer=optimizer,
            fisher=_fisher_settings(checked) if value["optimizer"] == "sngd" else None,
            batch_size=value["batch_size"],
            epochs=epochs,
            seed=seed,
            test=test,
            parameters=dict(checked),
        )


def _fisher_settings(checked: Mapping[str, Any]) -> FisherSettings:
    """The Fisher part of a flat proposal; what it leaves out keeps the default of `FisherSettings`."""
    values = {name: checked[name] for name in _FISHER_FIELDS if name in checked}
    if values.get("granularity") == "block":
        values["granularity"] = f"block:{checked.get('block', PARAMETERS['block'].default)}"
    return FisherSettings(**values)

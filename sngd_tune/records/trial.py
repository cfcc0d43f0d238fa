"""`TrialConfig`: one training run, checked once where the flat proposal enters and trusted from there on."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sngd_tune.errors import ConfigurationError, SettingsError
from sngd_tune.records.extras import check_installed
from sngd_tune.records.names import of_layers, patterns, seen_by, split
from sngd_tune.records.parameters import PARAMETERS, check_value, conditions, is_active
from sngd_tune.settings import NONE, FisherSettings, LayerSettings, ModelSettings

__all__ = ["NEEDS_JOINT_BATCH", "OptimizerConfig", "TrialConfig"]

#: Methods whose step is no function of averages over the workers that train a model together.
NEEDS_JOINT_BATCH = frozenset({"exact_ngd"})

#: What a method's own default is where the table of parameters has another: those of its package or paper. SNGD has
#: its base's.
_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "adamw": {"lr": 1e-3},
    "nadamw": {"lr": 2e-3},
    "muon": {"lr": 1e-3, "momentum": 0.95},
    "soap": {"lr": 3e-3, "beta1": 0.95, "beta2": 0.95},
    "exact_ngd": {"lr": 0.1, "momentum": 0.0, "relative_damping": 1.0},  # nothing bounds its step, so it begins small
}

_FISHER_FIELDS = tuple(field.name for field in dataclasses.fields(FisherSettings))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The method of a trial and its hyperparameters, of which each method takes its own (`records.arguments`).

    `form` and `base` are SNGD's. `relative_damping` is `exact_ngd`'s: that of SNGD stands in its `FisherSettings`.
    """

    method: str
    form: str
    base: str
    lr: float
    lr_schedule: str
    momentum: float
    momentum_kind: str
    beta1: float
    beta2: float
    weight_decay: float
    precondition_interval: int
    relative_damping: float


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run: workload, method, settings, length and seed.

    Attributes:
        workload: registered name or ``module:attribute``.
        optimizer: method and first-order hyperparameters.
        fisher: settings of the local Fisher layers, by pattern (``"*"`` last) where parameters of single layers were
            proposed; None for the baselines.
        batch_size: examples per step.
        epochs: at most.
        seed: of initialization, batches and sketches.
        seconds: of training after which it ends (evaluation not counted), where that comes before the last epoch.
        epoch_examples: training examples of an epoch; None: all of them, each once.
        test: whether the test set is evaluated after the last epoch (confirmations only).
        parameters: the flat values that were proposed, as Optuna and MLflow know them.
    """

    workload: str
    optimizer: OptimizerConfig
    fisher: ModelSettings | None
    batch_size: int
    epochs: int
    seed: int
    seconds: float | None = None
    epoch_examples: int | None = None
    test: bool = False
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def needs_likelihood(self) -> bool:
        """Whether its Fisher matrix is that of the model's own targets, so that outputs have to be observed."""
        return self.optimizer.method == "exact_ngd" or (self.fisher is not None and self.fisher.needs_outputs)

    @classmethod
    def from_flat(
        cls,
        parameters: Mapping[str, Any],
        *,
        workload: str,
        epochs: int,
        seed: int,
        seconds: float | None = None,
        epoch_examples: int | None = None,
        test: bool = False,
    ) -> "TrialConfig":
        """Validate a flat proposal such as ``{"granularity": "block", "block": 64, "lr": 0.1, "rank@head": 8}``.

        Raises:
            ConfigurationError: an unknown parameter, a value out of range, or one without a meaning beside the others;
                for one of single layers these are the values that the layers see (`records.parameters`).
            MissingDependencyError: the method needs a package that is not installed.
        """
        checked = {name: check_value(name, value) for name, value in parameters.items()}
        for name in checked:
            if not is_active(name, checked):
                raise ConfigurationError(f"{name}={checked[name]!r}: has a meaning only where {_needed(name)}")
        if epochs < 1:
            raise ConfigurationError(f"epochs={epochs!r}: must be ≥ 1")
        value = _completed(checked)
        check_installed(value["optimizer"])
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
            seconds=seconds,
            epoch_examples=epoch_examples,
            test=test,
            parameters=dict(checked),
        )


def _completed(checked: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each parameter: given, the method's default, or that of the table."""
    value = {name: checked.get(name, parameter.default) for name, parameter in PARAMETERS.items()}
    method = value["base"] if value["optimizer"] == "sngd" else value["optimizer"]
    value |= {name: default for name, default in _DEFAULTS.get(method, {}).items() if name not in checked}
    if value["optimizer"] == "exact_ngd" and not value["relative_damping"] > 0:
        raise ConfigurationError(
            f"relative_damping={value['relative_damping']!r}: must be > 0 for exact_ngd; F alone is singular, try 1.0"
        )
    return value


def _needed(name: str) -> str:
    pattern = split(name)[1]
    needed = " and ".join(f"{parent} in {list(values)}" for parent, values in conditions(name))
    return needed if pattern is None else f"layers {pattern} have {needed}"


def _fisher_settings(checked: Mapping[str, Any]) -> ModelSettings:
    """The Fisher part of a flat proposal; what it leaves out keeps the default of `FisherSettings`."""
    others = _settings(seen_by(checked, None))
    layers = [(pattern, _layer_settings(checked, pattern)) for pattern in patterns(checked)]
    return LayerSettings((*layers, ("*", others))) if layers else others


def _layer_settings(checked: Mapping[str, Any], pattern: str) -> FisherSettings | None:
    """What a pattern's layers have: its own values, and of the plain ones those that mean something beside them."""
    seen = seen_by(checked, pattern)
    kept = {name: seen[name] for name in seen if of_layers(name, pattern) in checked or _fits(name, seen)}
    try:
        return None if kept.get("granularity") == NONE else _settings(kept)
    except SettingsError as error:
        raise SettingsError(f"layers {pattern}: {error}; for these alone with @{pattern}") from error


def _fits(name: str, seen: Mapping[str, Any]) -> bool:
    """Whether a plain value has a meaning among those that a layer sees; Nyström's root does under ``input`` only."""
    granularity = seen.get("granularity", PARAMETERS["granularity"].default)
    return is_active(name, seen) and not (name == "root" and seen[name] == "nystrom" and granularity != "input")


def _settings(values: Mapping[str, Any]) -> FisherSettings:
    found = {name: values[name] for name in _FISHER_FIELDS if name in values}
    if found.get("granularity") == "block":
        found["granularity"] = f"block:{values.get('block', PARAMETERS['block'].default)}"
    damping = found.get("relative_damping", PARAMETERS["relative_damping"].default)
    found["relative_damping"] = damping * values.get("damping_scale", PARAMETERS["damping_scale"].default)
    return FisherSettings(**found)

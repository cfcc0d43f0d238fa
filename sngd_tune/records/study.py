"""`StudyConfig`: a whole study as a file describes it. Reading the file, with line numbers, is `search.load`'s job."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator

from sngd_tune.records.metrics import OBJECTIVES
from sngd_tune.records.parameters import nearest

__all__ = [
    "SAMPLERS",
    "SCHEMA_VERSION",
    "ConfirmConfig",
    "MlflowConfig",
    "ResourceConfig",
    "SchedulerConfig",
    "SearchConfig",
    "SpaceEntry",
    "StudyConfig",
]

#: Version of the study file. A file of another version is refused, never guessed at.
SCHEMA_VERSION = 1

#: Names of the samplers. `search.samplers` builds them; a test holds the two lists together.
SAMPLERS = ("tpe", "random", "gp", "cmaes", "qmc", "nsgaii", "nsgaiii", "brute_force")


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("must be a single number, word, true or false")
    return value


def _as_many(value: Any) -> Any:
    """One value where several may stand means a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


#: Plain, so that a wrong value gives one message and not one for each member of the union.
Scalar = Annotated[bool | int | float | str, PlainValidator(_scalar)]


class _Strict(BaseModel):
    """Unknown keys, quoted numbers, NaN and infinity are errors; a list may stand for a tuple."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SpaceEntry(_Strict):
    """A searched range (`low`, `high`, optionally `log` or `step`) or `choices`.

    `when` names other parameters, each with the value or values under which this entry applies; all must hold.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: Annotated[tuple[Scalar, ...] | None, BeforeValidator(_as_tuple)] = None
    when: dict[str, Annotated[tuple[Scalar, ...], BeforeValidator(_as_many)]] = Field(default_factory=dict)


class SchedulerConfig(_Strict):
    """The early stopper. `asha` stops the worse share of trials at each rung; `none` lets every trial end."""

    name: Literal["asha", "none"] = "asha"
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class ResourceConfig(_Strict):
    """What one trial reserves."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0


class SearchConfig(_Strict):
    """How the space is searched, and for how long."""

    sampler: Literal[SAMPLERS] = "tpe"  # type: ignore[valid-type]
    trials: Annotated[int, Field(ge=1)] = 32
    seconds: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    scheduler: SchedulerConfig | None = None  # None: asha for one objective, none for several
    resources: ResourceConfig = ResourceConfig()
    max_retries: Annotated[int, Field(ge=0)] = 1  # of a trial whose process or node died
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30.0


class ConfirmConfig(_Strict):
    """Re-training of the winner, and of the untuned default beside it, on seeds the search has not seen."""

    seeds: Annotated[int, Field(ge=0)] = 5
    baseline: bool = True


class MlflowConfig(_Strict):
    """Where the mirror goes. No `tracking_uri`: SQLite in the runs directory."""

    enabled: bool = True
    tracking_uri: str | None = None
    experiment: str | None = None  # None: the study's name


class StudyConfig(_Strict):
    """A study file: schema, workload, objectives, fixed values, space, starting points, search, confirmation, mirror.

    `space` gives each searched parameter one entry or several alternatives, whose `when` never hold together
    (learning rates that depend on the base optimizer, say); it is always a tuple here.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    workload: str
    data_dir: str | None = None
    epochs: Annotated[int, Field(ge=1)]
    objectives: Annotated[tuple[str, ...], BeforeValidator(_as_many)] = ("validation_loss",)
    fixed: dict[str, Scalar] = Field(default_factory=dict)
    space: dict[str, Annotated[tuple[SpaceEntry, ...], BeforeValidator(_as_many), Field(min_length=1)]]
    start: Annotated[tuple[dict[str, Scalar], ...], BeforeValidator(_as_tuple)] = ()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    mlflow: MlflowConfig = MlflowConfig()

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("must name at least one objective, each once")
        for name in value:
            if name not in OBJECTIVES:
                raise ValueError(f"{name!r}: not an objective{nearest(name, OBJECTIVES)}")
        return value

    @model_validator(mode="after")
    def _scheduler_fits(self) -> "StudyConfig":
        if len(self.objectives) > 1 and self.search.scheduler is not None and self.search.scheduler.name != "none":
            raise ValueError(
                "search.scheduler: asha stops by one metric; with several objectives leave it out or name it none"
            )
        return self

    @property
    def fishers(self) -> frozenset[str]:
        """Kinds of Fisher matrix that its trials may take; those but ``"empirical"`` need the workload's likelihood."""
        searched = {str(kind) for entry in self.space.get("fisher", ()) for kind in entry.choices or ()}
        return frozenset(searched or {str(self.fixed.get("fisher", "empirical"))})

    @property
    def scheduler(self) -> SchedulerConfig:
        """The early stopper in force."""
        return self.search.scheduler or SchedulerConfig(name="asha" if len(self.objectives) == 1 else "none")

"""`StudyConfig`: a whole study as a file describes it. Reading the file, with line numbers, is `search.load`'s job."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sngd_tune.records.metrics import OBJECTIVES
from sngd_tune.records.names import patterns, split
from sngd_tune.records.parameters import PARAMETERS, nearest
from sngd_tune.records.strict import Name, Scalar, Strict, as_many, as_tuple

__all__ = [
    "SAMPLERS",
    "SCHEMA_VERSION",
    "ConfirmConfig",
    "GroupConfig",
    "MlflowConfig",
    "NoiseConfig",
    "OptunaConfig",
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


class SpaceEntry(Strict):
    """A searched range (`low`, `high`, optionally `log` or `step`) or `choices`.

    `when` names other parameters, each with the value or values under which this entry applies; all must hold.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: Annotated[tuple[Scalar, ...] | None, BeforeValidator(as_tuple)] = None
    when: dict[str, Annotated[tuple[Scalar, ...], BeforeValidator(as_many)]] = Field(default_factory=dict)


class SchedulerConfig(Strict):
    """The early stopper. `asha` stops the worse share of trials at each rung; `none` lets every trial end.

    The first rung is after `grace_epochs`, the next after `reduction_factor` times as many, and so on. With
    `grace_seconds` rungs are seconds of training: trials are then compared at equal time, not at equal epochs.
    """

    name: Literal["asha", "none"] = "asha"
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    grace_seconds: Annotated[float, Field(gt=0)] | None = None
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class ResourceConfig(Strict):
    """What one trial reserves: `workers` processes that train one model together, data-parallel, each with its share.

    `gpus` of a worker may be a fraction: several trials share a GPU. ``"auto"`` takes the fraction from the memory that
    the largest trial of the study is estimated to need. `memory_gb` of a worker is what Ray reserves of a node's main
    memory (10⁹ bytes), so that trials packed on a node fit; ``"auto"`` estimates it as well.
    """

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None
    workers: Annotated[int, Field(ge=1)] = 1

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, value: float | str) -> float | str:
        if isinstance(value, float) and value > 1 and not value.is_integer():
            raise ValueError("must be a fraction of one GPU (≤ 1), a whole number of them, or auto")
        return value


class OptunaConfig(Strict):
    """Where Optuna keeps the study: in memory, or in a database or journal that several drivers share.

    `storage` is a URL of SQLAlchemy (``postgresql+psycopg://…``) or ``journal:/PATH``; one with a password belongs into
    ``SNGD_TUNE_OPTUNA_STORAGE``. Without `study` each run has a study of its own there; drivers that name the same one
    learn from each other's trials, and each makes its own `trials`.
    """

    storage: str | None = None
    study: Name | None = None

    @model_validator(mode="after")
    def _shared_somewhere(self) -> "OptunaConfig":
        if self.study is not None and self.storage is None:
            raise ValueError(f"study: {self.study!r}: is shared through a `storage`; name one, or leave the study out")
        return self


class SearchConfig(Strict):
    """How the space is searched, and for how long."""

    sampler: Literal[SAMPLERS] = "tpe"  # type: ignore[valid-type]
    trials: Annotated[int, Field(ge=1)] = 32
    seconds: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    scheduler: SchedulerConfig | None = None  # None: asha for one objective, none for several
    resources: ResourceConfig = ResourceConfig()
    seeds: Annotated[int, Field(ge=1)] = 1  # trainings of each proposal, each a trial; the search goes by their mean
    optuna: OptunaConfig = OptunaConfig()
    max_retries: Annotated[int, Field(ge=0)] = 1  # of a trial whose process or node died; preemptions do not count
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30.0

    @property
    def trainings(self) -> int:
        """How many there will be: of each proposal one a seed."""
        return self.trials * self.seeds


class ConfirmConfig(Strict):
    """Re-training of the winner, and of the untuned default beside it, on seeds the search has not seen."""

    seeds: Annotated[int, Field(ge=0)] = 5
    baseline: bool = True


class NoiseConfig(Strict):
    """The gradient noise scale (`scaling.noise`) of each trial after these `epochs`.

    Attributes:
        batches: of the trial's batch size, drawn anew with replacement; each is differentiated twice.
        epochs: after which it is measured. It is no part of the training's seconds and joules.
    """

    batches: Annotated[int, Field(ge=4)] = 16
    epochs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_many), Field(min_length=1)]

    def check_epochs(self, epochs: int) -> None:
        """Raise ValueError where one is beyond the end of a training."""
        if max(self.epochs) > epochs:
            raise ValueError(f"noise.epochs: {max(self.epochs)}: must be ≤ epochs={epochs}; lower it")


class GroupConfig(Strict):
    """The comparison that a study is a part of, whose run in MLflow is the parent of the study's."""

    id: str
    name: str


class MlflowConfig(Strict):
    """Where the mirror goes. No `tracking_uri`: SQLite in the runs directory."""

    enabled: bool = True
    tracking_uri: str | None = None
    experiment: str | None = None  # None: the study's name
    group: GroupConfig | None = None


class StudyConfig(Strict):
    """A study file: schema, workload, objectives, fixed values, space, starting points, search, confirmation, mirror.

    `space` gives each searched parameter one entry or several alternatives, whose `when` never hold together
    (learning rates that depend on the base optimizer, say); it is always a tuple here.

    In `fixed`, `space` and `start`, and as a parent in `when`, ``rank@encoder.*`` is the rank of the layers whose names
    match the pattern; what that means is said in `records.parameters`. A parent's name is taken as it stands:
    ``granularity`` is the plain one, also in the `when` of a parameter of single layers.

    `storage`, a folder that all nodes see or an object store (``s3://bucket/prefix``), is where trials on a cluster
    keep their checkpoints, and where the run directory is copied to; without it both stay in the run directory.

    A training ends after `epochs`, or in the step in which it has trained for `seconds` (evaluation not counted). An
    epoch is a pass over the training set, or `epoch_examples` of it: the trainings are evaluated as often as that, on
    the first `validation_examples` of the validation set. The training set is its first `training_examples` alone,
    where that is named. With `noise` the gradient noise scale is measured as well; default: it is not.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    workload: str
    data_dir: str | None = None
    storage: str | None = None
    epochs: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(gt=0)] | None = None
    epoch_examples: Annotated[int, Field(ge=1)] | None = None
    training_examples: Annotated[int, Field(ge=1)] | None = None
    validation_examples: Annotated[int, Field(ge=1)] | None = None
    objectives: Annotated[tuple[str, ...], BeforeValidator(as_many)] = ("validation_loss",)
    fixed: dict[str, Scalar] = Field(default_factory=dict)
    space: dict[str, Annotated[tuple[SpaceEntry, ...], BeforeValidator(as_many), Field(min_length=1)]]
    start: Annotated[tuple[dict[str, Scalar], ...], BeforeValidator(as_tuple)] = ()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    noise: NoiseConfig | None = None
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

    @model_validator(mode="after")
    def _noise_fits(self) -> "StudyConfig":
        if self.noise is not None:
            self.noise.check_epochs(self.epochs)
            workers = self.search.resources.workers
            if workers > 1:
                raise ValueError(f"noise: must be left out where search.resources.workers={workers}: one measures it")
        return self

    @model_validator(mode="after")
    def _rungs_fit(self) -> "StudyConfig":
        grace = self.search.scheduler.grace_seconds if self.search.scheduler is not None else None
        if grace is not None and (self.seconds is None or grace > self.seconds):
            raise ValueError(
                f"search.scheduler.grace_seconds: {grace:g}: needs `seconds`, of a training, that are at least as many"
            )
        return self

    @property
    def fishers(self) -> frozenset[str]:
        """Kinds of Fisher matrix that its trials may take; those but ``"empirical"`` need the workload's likelihood."""
        named = [name for name in (*self.fixed, *self.space) if split(name)[0] == "fisher"]
        kinds = {kind for name in named for kind in self._values(name)}
        if "fisher" not in named:
            kinds.add("empirical")
        if "exact_ngd" in self.methods:
            kinds.add("exact")
        return frozenset(kinds)

    @property
    def methods(self) -> frozenset[str]:
        """The methods that its trials may train with."""
        named = "optimizer" in self.fixed or "optimizer" in self.space
        return frozenset(self._values("optimizer") if named else {PARAMETERS["optimizer"].default})

    def _values(self, name: str) -> set[str]:
        """The words that a fixed or searched parameter may take."""
        if name in self.fixed:
            return {str(self.fixed[name])}
        return {str(value) for entry in self.space[name] for value in entry.choices or ()}

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of module names that its parameters of single layers have, in the order in which they count."""
        return patterns((*self.fixed, *self.space))

    @property
    def scheduler(self) -> SchedulerConfig:
        """The early stopper in force."""
        return self.search.scheduler or SchedulerConfig(name="asha" if len(self.objectives) == 1 else "none")

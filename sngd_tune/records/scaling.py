"""Scaling studies: what a file describes, the points that follow from it, and what was measured at each."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sngd_tune.records.comparison import TargetConfig
from sngd_tune.records.parameters import PARAMETERS, nearest
from sngd_tune.records.strict import Name, Scalar, Strict, as_many
from sngd_tune.records.study import MlflowConfig, NoiseConfig, ResourceConfig, StudyConfig

__all__ = [
    "RUN_AXES",
    "Measurement",
    "PlannedPoint",
    "ScalingConfig",
    "TuneConfig",
    "Variant",
]

#: Axes that are neither sizes of the workload nor parameters of a trial. `workers` share one joint batch (strong
#: scaling); with `weak_workers` the joint batch grows as they do.
RUN_AXES = ("training_examples", "workers", "weak_workers", "trials_at_a_time")

Values = Annotated[tuple[Scalar, ...], BeforeValidator(as_many), Field(min_length=1)]


class TuneConfig(Strict):
    """A parameter that is tuned anew where certain axes are moved.

    Attributes:
        factors: of the value that the file and `follow` give it, ascending; each makes a candidate. 1 is among them.
        axes: along which it is tuned.
    """

    factors: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_many), Field(min_length=2)]
    axes: Annotated[tuple[str, ...], BeforeValidator(as_many), Field(min_length=1)]

    @field_validator("factors")
    @classmethod
    def _ascend(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        value = tuple(sorted(value))
        if 1 not in value:
            raise ValueError("1 must be among them: it is the file's own value; add it")
        if any(high < 1.01 * low for low, high in itertools.pairwise(value)):
            raise ValueError("each must be 1 % above the one before at the least; spread them")
        return value


class ScalingConfig(Strict):
    """A scaling file: one workload, a setting for each method, and axes along which one thing at a time is changed.

    Attributes:
        storage: as in a study, for all of it.
        methods: the setting of each method, as flat trial parameters. It is the same at every point, but for the axis
            and for what `follow` and `tune` say.
        fixed: parameters that all methods have.
        sizes: of the workload at the base point, where they are not its own.
        axes: values by axis: a size of the workload (`Workload.axes`), one of `RUN_AXES`, or a trial parameter. A
            method for which a parameter has no meaning has no points along it.
        grid: every combination of the values of two axes, in place of one axis at a time.
        follow: ``{lr: {batch_size: 0.5}}``: the learning rate grows with the square root of the batch size.
        tune: ``{lr: {factors: [0.5, 1, 2], axes: [batch_size]}}``: at each point along these axes, the base point
            included, a method that has the parameter is trained with each factor times its value, after `follow`: the
            candidates of one point. Which one a curve takes is said in `scaling.choice`.
        seeds: trainings of each point, and of each candidate.
        epochs, seconds, epoch_examples, validation_examples, target: as in a study and a comparison.
        noise: the gradient noise scale is measured after these epochs, at points of one worker; default: it is not.
        resources: of a trial.
        trials_at_a_time: 1, so that none disturbs the times of another.
        memory_gb: what a trial may need (10⁹ bytes); default: what Ray gives out on its smallest node, shared by the
            trials that run at a time, or what `resources` reserves.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    workload: str
    data_dir: str | None = None
    storage: str | None = None
    methods: Annotated[dict[Name, dict[str, Scalar]], Field(min_length=1)]
    fixed: dict[str, Scalar] = Field(default_factory=dict)
    sizes: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    axes: Annotated[dict[str, Values], Field(min_length=1)]
    grid: bool = False
    follow: dict[str, dict[str, float]] = Field(default_factory=dict)
    tune: dict[str, TuneConfig] = Field(default_factory=dict)
    seeds: Annotated[int, Field(ge=1)] = 3
    epochs: Annotated[int, Field(ge=1)] = 1_000_000
    seconds: Annotated[float, Field(gt=0)] | None = None
    epoch_examples: Annotated[int, Field(ge=1)] | None = None
    validation_examples: Annotated[int, Field(ge=1)] | None = None
    target: TargetConfig | None = None
    noise: NoiseConfig | None = None
    resources: ResourceConfig = ResourceConfig()
    trials_at_a_time: Annotated[int, Field(ge=1)] = 1
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    max_retries: Annotated[int, Field(ge=0)] = 1
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30.0
    mlflow: MlflowConfig = MlflowConfig()

    @model_validator(mode="after")
    def _ends(self) -> "ScalingConfig":
        if self.seconds is None and self.epochs == 1_000_000:
            raise ValueError("epochs: is missing, and `seconds` as well; name the length of a training")
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> "ScalingConfig":
        if self.noise is not None:
            self.noise.check_epochs(self.epochs)
            workers = [self.resources.workers, *self.axes.get("workers", ()), *self.axes.get("weak_workers", ())]
            if 1 not in workers:
                raise ValueError("noise: is measured at points of one worker, and there are none; leave it out")
        return self

    @field_validator("resources")
    @classmethod
    def _in_numbers(cls, value: ResourceConfig) -> ResourceConfig:
        if "auto" in (value.gpus, value.memory_gb):
            raise ValueError("auto: is tried out for one study, and points differ; name gpus and memory_gb in numbers")
        return value

    @model_validator(mode="after")
    def _axes_fit(self) -> "ScalingConfig":
        if self.grid and len(self.axes) != 2:
            raise ValueError(f"grid: true: combines two axes, and there are {len(self.axes)}; leave it out or name two")
        for axis, values in self.axes.items():
            if len(set(values)) != len(values):
                raise ValueError(f"axes.{axis}: {list(values)}: has a value twice; keep one")
            if axis in RUN_AXES and not all(type(value) is int and value >= 1 for value in values):
                raise ValueError(f"axes.{axis}: {list(values)}: must be whole numbers ≥ 1")
        if "workers" in self.axes and "weak_workers" in self.axes and self.grid:
            raise ValueError("axes: workers and weak_workers: both say how many there are; no grid has both")
        return self

    @model_validator(mode="after")
    def _tune_fits(self) -> "ScalingConfig":
        if self.tune and self.grid:
            raise ValueError("tune: is for one axis at a time; leave out `grid`")
        for name, tuned in self.tune.items():
            if name not in PARAMETERS or PARAMETERS[name].kind != "float":
                floats = [each for each, parameter in PARAMETERS.items() if parameter.kind == "float"]
                raise ValueError(f"tune.{name}: must be a parameter that is a real number{nearest(name, floats)}")
            if name in self.axes:
                raise ValueError(f"tune.{name}: is an axis; leave one of the two out")
            unknown = next((axis for axis in tuned.axes if axis not in self.axes), None)
            if unknown is not None:
                raise ValueError(f"tune.{name}.axes: {unknown}: not among the axes{nearest(unknown, self.axes)}")
        return self

    @model_validator(mode="after")
    def _follow_fits(self) -> "ScalingConfig":
        for name, exponents in self.follow.items():
            if name not in PARAMETERS or PARAMETERS[name].kind == "choice":
                raise ValueError(f"follow.{name}: must be a parameter that is a number, such as lr")
            unknown = next((axis for axis in exponents if axis not in self.axes), None)
            if unknown is not None:
                raise ValueError(f"follow.{name}.{unknown}: not among the axes{nearest(unknown, self.axes)}")
        return self


@dataclass(frozen=True, kw_only=True)
class PlannedPoint:
    """One setting of all axes for one method; its seeds are trials ``<name>.0``, ``<name>.1``, …

    Attributes:
        name: ``"base.sngd"``, ``"width=256.sngd"``; of a candidate ``"width=256,lr=0.002.sngd"``.
        method: its label.
        axes: the value of every axis that the method has, those that were not moved included.
        moved: the axes that are not at their base value.
        sizes: of the workload.
        training_examples: the first ones of the training set; None: all.
        workers: processes of a trial.
        trials_at_a_time: how many trials run at once.
        parameters: of its trials.
        tuned: factors other than 1 by parameter: the point is a candidate beside the one without any.
    """

    name: str
    method: str
    axes: Mapping[str, Scalar]
    moved: tuple[str, ...]
    sizes: Mapping[str, int]
    training_examples: int | None
    workers: int
    trials_at_a_time: int
    parameters: Mapping[str, Scalar]
    tuned: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Points that one run of Tune can train: of one model, one set of data, and one number of workers.

    Attributes:
        name: of its folder, an ordinary run directory.
        study: what its trials share.
        trials_at_a_time: how many trials run at once.
        memory_gb: what a trial may need; None: what there is.
        points: names.
    """

    name: str
    study: StudyConfig
    trials_at_a_time: int
    memory_gb: float | None
    points: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one training measured, as a point of the curve along one axis.

    Attributes:
        axis: the axis that is looked along.
        value: where on it.
        method: label of the method.
        seed: number of the training, the same for all points: 0, 1, …
        measures: numbers by name (`scaling.measures.MEASURES` has units); the seconds to a target that was missed are
            infinite, and what a training does not have is left out.
        held: the values of the other axes where these are not at their base (grids only).
    """

    axis: str
    value: Scalar
    method: str
    seed: int
    measures: Mapping[str, float]
    held: Mapping[str, Scalar] = field(default_factory=dict)

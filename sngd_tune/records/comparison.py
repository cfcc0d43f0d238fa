"""`ComparisonConfig`: methods, workloads and the budget they share, as a comparison file describes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from sngd_tune.records.parameters import nearest
from sngd_tune.records.strict import Name, Scalar, Strict, as_many, as_tuple
from sngd_tune.records.study import MlflowConfig, SearchConfig, SpaceEntry, StudyConfig
from sngd_tune.records.target import Target

__all__ = ["Cell", "ComparisonConfig", "MethodSpace", "TargetConfig", "WorkloadBudget"]


class MethodSpace(Strict):
    """What is searched for one method, whatever the workload: a file of ``search_spaces/methods``."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    method: Name
    fixed: dict[str, Scalar] = Field(default_factory=dict)
    space: dict[str, Annotated[tuple[SpaceEntry, ...], BeforeValidator(as_many), Field(min_length=1)]]
    start: Annotated[tuple[dict[str, Scalar], ...], BeforeValidator(as_tuple)] = ()


class TargetConfig(Strict):
    """The validation metric that counts as reached, in the place of the workload's own target."""

    metric: Literal["validation_loss", "validation_accuracy"]
    value: float
    provenance: str = "the comparison file"

    def target(self) -> Target:
        """The same as a value."""
        return Target(metric=self.metric, value=self.value, provenance=self.provenance)


class WorkloadBudget(Strict):
    """One workload of a comparison: what every method is given there.

    Attributes:
        workload: registered name or ``module:attribute``.
        name: of its folder and its tables; default the workload's own.
        seconds: of training (evaluation not counted) that each single training gets; this is what is equal.
        epochs: at most, where that comes first.
        epoch_examples: training examples between two evaluations; default: all.
        validation_examples: the first ones of the validation set, on which it is evaluated; default: all. Evaluation is
            not counted, but it takes time.
        objective: by which a search ranks.
        fixed: parameters that are the same for every method, such as the batch size.
        target: default the workload's own.
        methods: those of the comparison that run here; default all.
    """

    workload: str
    name: Name | None = None
    seconds: Annotated[float, Field(gt=0)]
    epochs: Annotated[int, Field(ge=1)] = 1_000_000
    epoch_examples: Annotated[int, Field(ge=1)] | None = None
    validation_examples: Annotated[int, Field(ge=1)] | None = None
    objective: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    fixed: dict[str, Scalar] = Field(default_factory=dict)
    target: TargetConfig | None = None
    methods: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] | None = None

    @property
    def label(self) -> str:
        """The name of its folder and its tables."""
        return self.name or self.workload.replace(":", ".")


class ComparisonConfig(Strict):
    """A comparison file: methods by their spaces, workloads, and the budget of each search.

    Attributes:
        storage: as in a study, for the whole comparison.
        candidate: the method whose ratio to each other one is reported.
        methods: file of the space by method, relative to the comparison file.
        search: of each method on each workload. `scheduler` defaults to ASHA whose rungs are a ninth and a third of a
            training's seconds.
        confirm_seeds: fresh seeds on which each winner is trained again; the same for all methods.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    data_dir: str | None = None
    storage: str | None = None
    candidate: str
    methods: Annotated[dict[Name, str], Field(min_length=1)]
    workloads: Annotated[tuple[WorkloadBudget, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    search: SearchConfig = SearchConfig()
    confirm_seeds: Annotated[int, Field(ge=1)] = 5
    mlflow: MlflowConfig = MlflowConfig()

    @model_validator(mode="after")
    def _names_fit(self) -> "ComparisonConfig":
        labels = [budget.label for budget in self.workloads]
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated is not None:
            raise ValueError(f"workloads: {repeated!r} stands twice; give one of them another `name`")
        named = [self.candidate, *(method for budget in self.workloads for method in budget.methods or ())]
        unknown = next((method for method in named if method not in self.methods), None)
        if unknown is not None:
            raise ValueError(f"{unknown!r}: not among the methods{nearest(unknown, self.methods)}")
        if self.search.seconds is not None:
            raise ValueError("search.seconds: would give methods unequal trials; set `seconds` of each workload")
        if self.search.seeds > 1:
            raise ValueError(
                f"search.seeds={self.search.seeds}: a comparison trains winners again on `confirm_seeds`; leave it out"
            )
        if self.search.optuna.study is not None:
            raise ValueError(
                f"search.optuna.study={self.search.optuna.study!r}: each method searches a space of its own on each "
                "workload; leave it out, and every search has its own study in the storage"
            )
        return self

    def methods_of(self, budget: WorkloadBudget) -> tuple[str, ...]:
        """The methods that run on a workload, in the order of the file."""
        return tuple(method for method in self.methods if budget.methods is None or method in budget.methods)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one workload.

    Attributes:
        workload: label of the workload's budget.
        method: its label.
        study: what is searched there; it confirms nothing by itself.
    """

    workload: str
    method: str
    study: StudyConfig

    def directory(self, comparison: Path) -> Path:
        """The cell's run directory inside the comparison's."""
        return comparison / self.workload / self.method

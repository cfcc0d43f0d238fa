import textwrap
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.comparison import ComparisonConfig
from sngd_tune.search.comparison import load_comparison
from tests.search.studies import SEARCH_SPACES

FILE = """
schema: 1
name: two
candidate: a
methods: {a: a.yaml, b: b.yaml}
workloads:
  - {workload: digits_mlp, seconds: 2.7, epoch_examples: 100, fixed: {batch_size: 50}}
  - {workload: "mine:Own", name: own, seconds: 9, epochs: 4, objective: validation_accuracy, methods: [b]}
search: {trials: 5, seed: 3}
"""
A = "schema: 1\nmethod: a\nfixed: {optimizer: sgd}\nspace:\n  lr: {low: 1e-3, high: 1, log: true}\n"
B = A.replace("method: a", "method: b").replace("sgd", "adamw") + "start:\n  - {lr: 1e-3}\n"


def write(folder: Path, text: str = FILE, a: str = A, b: str = B) -> Path:
    for name, content in (("c.yaml", text), ("a.yaml", a), ("b.yaml", b)):
        (folder / name).write_text(textwrap.dedent(content).lstrip(), encoding="utf-8")
    return folder / "c.yaml"


def errors(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_comparison(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def test_each_method_becomes_a_study_of_each_workload_it_runs_on(tmp_path: Path) -> None:
    config, cells = load_comparison(write(tmp_path))
    assert [(cell.workload, cell.method) for cell in cells] == [("digits_mlp", "a"), ("digits_mlp", "b"), ("own", "b")]
    first, _, last = (cell.study for cell in cells)
    assert (first.name, first.workload, first.seconds, first.epoch_examples) == ("digits_mlp.a", "digits_mlp", 2.7, 100)
    assert first.fixed == {"batch_size": 50, "optimizer": "sgd"}
    assert (last.name, last.workload, last.epochs, last.objectives) == (
        "own.b",
        "mine:Own",
        4,
        ("validation_accuracy",),
    )
    assert last.start == ({"lr": 1e-3},)
    assert {(cell.study.search.trials, cell.study.search.seed) for cell in cells} == {(5, 3)}
    assert {cell.study.confirm.seeds for cell in cells} == {0}
    assert {cell.study.mlflow.experiment for cell in cells} == {"two"}
    assert ComparisonConfig.model_validate(config.model_dump(mode="json", by_alias=True)) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.seeds=3", "search.seeds=3: a comparison trains winners again on `confirm_seeds`; leave it out"),
        (
            "search.optuna={storage: 'journal:/x', study: ours}",
            "search.optuna.study='ours': each method searches a space",
        ),
    ],
)
def test_what_belongs_to_a_single_study_is_refused(tmp_path: Path, override: str, said: str) -> None:
    (found,) = errors(write(tmp_path), override)
    assert said in found


def test_the_early_stopper_counts_seconds_in_the_proportion_of_its_factor(tmp_path: Path) -> None:
    path = write(tmp_path)
    graces = [cell.study.scheduler.grace_seconds for cell in load_comparison(path)[1]]
    assert graces == pytest.approx([0.3, 0.3, 1.0])
    (first, *_) = load_comparison(path, ["search.scheduler={reduction_factor: 2}"])[1]
    assert first.study.scheduler.grace_seconds == pytest.approx(2.7 / 4)
    (first, *_) = load_comparison(path, ["search.scheduler.name=none"])[1]
    assert first.study.scheduler.name == "none"


@pytest.mark.parametrize("path", sorted((SEARCH_SPACES / "comparisons").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_comparison_loads(path: Path) -> None:
    config, cells = load_comparison(path)
    assert config.name == path.stem
    assert len(cells) == sum(len(config.methods_of(budget)) for budget in config.workloads)
    assert config.confirm_seeds >= 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("candidate=c", "'c': not among the methods; known: a, b (changed by --set candidate=c)"),
        ("workloads.1.methods=[c]", "'c': not among the methods"),
        ("workloads.1.name=digits_mlp", "workloads: 'digits_mlp' stands twice; give one of them another `name`"),
        (f"workloads.1.name={'x' * 99}", "name: 'xxx"),
        ("search.seconds=5", "search.seconds: would give methods unequal trials"),
        ("workloads.0.seconds=0", "must be greater than 0"),
        ("workloads.0.secnds=3", "workloads.0.secnds: unknown key; did you mean 'seconds'?"),
        ("methods={}", "methods: {}"),
        ("confirm_seeds=0", "confirm_seeds: 0: must be greater than or equal to 1"),
        ("schema=2", "schema: 2: this sngd_tune reads version 1"),
        ("methods.a=none.yaml", "none.yaml: cannot be read: No such file or directory"),
        ("workloads.0.fixed={lr: 0.1}", "a.yaml:5: space.lr: also stands under fixed as 0.1; keep one of them"),
        ("workloads.0.target={metric: training_loss, value: 1}", "metric: 'training_loss'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, override: str, expected: str) -> None:
    assert any(expected in line for line in errors(write(tmp_path), override)), errors(write(tmp_path), override)


def test_faults_of_a_methods_space_are_placed_in_its_file(tmp_path: Path) -> None:
    (line,) = errors(write(tmp_path, a=A.replace("high: 1", "high: 1e-4")))
    assert line.startswith("a.yaml:5: space.lr: ")
    assert errors(write(tmp_path, a=A + "epochs: 3\n")) == [
        "a.yaml:6: epochs: unknown key; known: fixed, method, schema, space, start"
    ]

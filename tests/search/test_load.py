# ruff: noqa: E501  the tables read better one case a line
import string
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.load import load_study, parse_study
from tests.search.studies import CONDITIONAL, HEAD, LAYERED, SEARCH_SPACES

SPACE = "space: {lr: {low: 1e-3, high: 1, log: true}}\n"  # one line: what follows begins on line 6


def errors_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_study(text, "f.yaml", overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", sorted(SEARCH_SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_loads_and_survives_a_round_trip(path: Path) -> None:
    config = load_study(path)
    assert config.name == path.stem
    assert StudyConfig.model_validate(config.model_dump(mode="json", by_alias=True)) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SPACE, {"empirical"}),
        (SPACE + "fixed: {granularity: kron, root: eigh, fisher: exact}\n", {"exact"}),
        ("space: {granularity: {choices: [input, unit]}}\n", {"empirical"}),
        (
            "fixed: {root: eigh}\nspace:\n  granularity: {choices: [kron, unit]}\n  fisher:\n"
            "  - {choices: [sampled, exact], when: {granularity: kron}}\n"
            "  - {choices: [empirical], when: {granularity: unit}}\n",
            {"empirical", "sampled", "exact"},
        ),
        (SPACE + "fixed: {granularity@head: kron, fisher@head: exact}\n", {"empirical", "exact"}),
        (LAYERED.removeprefix(HEAD), {"empirical", "sampled"}),
    ],
)
def test_kinds_of_fisher_matrix_that_trials_may_take(text: str, expected: set[str]) -> None:
    assert parse_study(HEAD + text, "f.yaml").fishers == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml:1: is empty; a study is a mapping that begins with `schema: 1`"),
        ("- a\n- b\n", "f.yaml:1: holds list ['a', 'b']; a study is a mapping"),
        ("a: [1\nb: 2\n", "f.yaml:2: not readable as YAML"),
        ("a: \x00\n", "f.yaml: not readable as YAML"),
        ("[" * 3000, "nested too deeply"),
        ("a: &x 1\nb: 2\nc: *x\n", "f.yaml:1: not readable as YAML: anchors and aliases"),
        ("a: 1\nb: !!python/none x\n", "f.yaml:2: not readable as YAML: the tag"),
        ("name: x\nschema: 1\nname: y\n", "f.yaml:3: name: stands twice, first on line 1; keep one of them"),
        (
            HEAD + "space:\n  lr: {low: 1, high: 2}\n  lr: {low: 1, high: 3}\n",
            "f.yaml:7: space.lr: stands twice, first on line 6",
        ),
        ("name: x\n", "f.yaml:1: schema: is missing; add the line `schema: 1`"),
        ("name: x\nschema: 2\n", "f.yaml:2: schema: 2: this sngd_tune reads version 1"),
        ("schema: true\n", "f.yaml:1: schema: True: this sngd_tune reads version 1"),
        ("schema: 1\nname: x\nworkload: w\n" + SPACE, "f.yaml:1: epochs: is missing; add it"),
        (HEAD + SPACE + "serach: {}\n", "f.yaml:6: serach: unknown key; did you mean 'search'?"),
        (
            HEAD + SPACE + "search:\n  seed: 1\n  trails: 8\n",
            "f.yaml:8: search.trails: unknown key; did you mean 'trials'?",
        ),
        (
            HEAD + SPACE + "search:\n  scheduler:\n    grace_epoch: 1\n",
            "f.yaml:8: search.scheduler.grace_epoch: unknown key; did you mean 'grace_epochs'?",
        ),
        (HEAD + "space:\n  lr: {low: 1, hihg: 2}\n", "f.yaml:6: space.lr.hihg: unknown key; did you mean 'high'?"),
        (
            HEAD + "space:\n  lr:\n    - {low: 1,\n       hihg: 2}\n",
            "f.yaml:8: space.lr.0.hihg: unknown key; did you mean 'high'?",
        ),
        (HEAD + SPACE + "search:\n  trials: ten\n", "f.yaml:7: search.trials: 'ten': must be a valid integer"),
        (HEAD + SPACE + "search:\n  trials: 0\n", "f.yaml:7: search.trials: 0: must be greater than or equal to 1"),
        (HEAD + SPACE + "search:\n", "f.yaml:6: search: None: must be a mapping of keys"),
        (HEAD + SPACE + "search: {seconds: .nan}\n", "f.yaml:6: search.seconds: nan: must be a finite number"),
        (HEAD + SPACE + "search: {sampler: tpee}\n", "f.yaml:6: search.sampler: 'tpee': must be 'tpe', 'random'"),
        (HEAD + SPACE + "objectives: validation_los\n", "did you mean 'validation_loss'?"),
        (HEAD + SPACE + "fixed: {batch_size: [1, 2]}\n", "f.yaml:6: fixed.batch_size: [1, 2]: must be a single number"),
        (
            HEAD + SPACE + "fixed: {batch_sise: 1}\n",
            "f.yaml:6: fixed.batch_sise: not a parameter; did you mean 'batch_size'?",
        ),
        (HEAD + SPACE + "fixed:\n  relative_damping: -1\n", "f.yaml:7: fixed.relative_damping: -1: must be ≥ 0"),
        (
            HEAD + SPACE + "fixed: {relative_damping: .nan}\n",
            "f.yaml:6: fixed.relative_damping: nan: must be a finite float",
        ),
        (HEAD + SPACE + "fixed: {fisher_interval: 0}\n", "f.yaml:6: fixed.fisher_interval: 0: must be ≥ 1"),
        (HEAD + SPACE + "fixed: {lr: 0.1}\n", "f.yaml:5: space.lr: also stands under fixed as 0.1; keep one of them"),
        (
            HEAD + SPACE + "fixed: {momentum: 0.5, rank: 4, root: eigh}\n",
            "f.yaml:6: fixed.rank: 4: has no meaning anywhere",
        ),
        (HEAD + "space: {}\n", "f.yaml:5: space: is empty; name at least one parameter"),
        (HEAD + "space:\n  lrr: {low: 1, high: 2}\n", "f.yaml:6: space.lrr: not a parameter; did you mean 'lr'?"),
        (HEAD + "space:\n  lr: {low: 2, high: 1}\n", "f.yaml:6: space.lr: low=2: must be < high=1"),
        (HEAD + "space:\n  lr: {low: 1, high: 1}\n", "f.yaml:6: space.lr: low=1: must be < high=1"),
        (
            HEAD + "space:\n  weight_decay: {low: 0, high: 1, log: true}\n",
            "f.yaml:6: space.weight_decay: low=0: must be > 0 on a log scale",
        ),
        (HEAD + "space:\n  lr: {low: 1}\n", "f.yaml:6: space.lr: needs either low and high, or choices"),
        (
            HEAD + "space:\n  lr: {low: 1, high: 2, choices: [1]}\n",
            "f.yaml:6: space.lr: has choices and parts of a range",
        ),
        (HEAD + "space:\n  lr: {choices: []}\n", "f.yaml:6: space.lr: choices is empty"),
        (HEAD + "space:\n  lr: {choices: [1, 1.0]}\n", "each value must stand once"),
        (HEAD + "space:\n  base: {low: 1, high: 2}\n", "f.yaml:6: space.base: needs choices: [...], from sgd, adamw"),
        (HEAD + "space:\n  base: {choices: [sgd, adam]}\n", "f.yaml:6: space.base: 'adam': must be one of sgd, adamw"),
        (HEAD + "space:\n  rank: {low: 1, high: 4, step: 0.5}\n", "f.yaml:6: space.rank: step=0.5: must be an integer"),
        (
            HEAD + "space:\n  rank: {low: 1, high: 4, step: 2}\n",
            "f.yaml:6: space.rank: step=2: must divide high − low = 3",
        ),
        (HEAD + "space:\n  lr: {low: 1, high: 4, step: 1, log: true}\n", "step=1: cannot stand beside log: true"),
        (HEAD + "space:\n  rank: {low: 1.5, high: 4}\n", "f.yaml:6: space.rank: 1.5: must be a finite int"),
        (HEAD + "space:\n  lr: {low: 0, high: 4}\n", "f.yaml:6: space.lr: 0.0: must be > 0"),
        (
            HEAD
            + "space:\n  granularity: {choices: [input, diagonal]}\n  block:\n    choices: [8]\n    when:\n      granularity: block\n",
            "f.yaml:10: space.block.when.granularity: conditional parameter whose parent never takes that value: granularity is input, diagonal, never 'block'",
        ),
        (
            HEAD + "space:\n  block: {choices: [8], when: {granlarity: block}}\n",
            "'granlarity' is neither in the space nor fixed",
        ),
        (
            HEAD + "space:\n  lr: {low: 1, high: 2}\n  rank: {choices: [4], when: {lr: 1}}\n",
            "f.yaml:7: space.rank.when.lr: 'lr' is searched over a range; a condition needs a parent with choices",
        ),
        (
            HEAD + "space:\n  granularity: {choices: [input, block]}\n  block: {choices: [8, 16]}\n",
            "f.yaml:7: space.block: has no meaning where granularity=input; add `when: {granularity: block}`",
        ),
        (
            HEAD + "space:\n  granularity: {choices: [input, block]}\n  root: {choices: [nystrom, eigh]}\n",
            "f.yaml:5: space: the combination granularity=block,root=nystrom is no valid trial: root='nystrom'",
        ),
        (
            HEAD
            + "space:\n  base: {choices: [sgd, adamw], when: {form: fused}}\n  form: {choices: [fused, explicit], when: {base: sgd}}\n",
            "f.yaml:5: space: conditions go round in a circle: ",
        ),
        (
            HEAD
            + "space:\n  base: {choices: [sgd, adamw]}\n  lr:\n    - {low: 1, high: 2, when: {base: sgd}}\n    - {low: 1, high: 3}\n",
            "f.yaml:7: space.lr: alternatives lr[base=sgd] and lr[] both apply",
        ),
        (
            HEAD
            + "space:\n  granularity: {choices: [input, block]}\n  root: {choices: [nystrom], when: {granularity: input}}\n"
            + "  lr: {low: 1, high: 2, when: {granularity: block, root: nystrom}}\n",
            "f.yaml:8: space.lr.when: no combination of the space ever has granularity=block,root=nystrom",
        ),
        (HEAD + SPACE + "start:\n  - {lr: 2}\n", "f.yaml:7: start.0.lr: 2.0: lies outside the space (0.001 … 1)"),
        (
            HEAD + SPACE + "start:\n  - {lr: 0.1}\n  - {lrr: 1}\n",
            "f.yaml:8: start.1.lrr: 1: not in the space; did you mean 'lr'?",
        ),
        (
            HEAD + SPACE + "fixed: {momentum: 0.9}\nstart: [{momentum: 0.5}]\n",
            "f.yaml:7: start.0.momentum: 0.5: is fixed to 0.9; leave it out",
        ),
        (CONDITIONAL + "  - {block: 8}\n", "start.1.block: 8: needs granularity=block beside it"),
        (CONDITIONAL + "  - {granularity: block, block: 12}\n", "start.1.block: 12: lies outside the space"),
        (
            HEAD + "space:\n  lr@head: {low: 1, high: 2}\n",
            "f.yaml:6: space.lr@head: lr is the same for all layers; leave @head out; not so: granularity",
        ),
        (HEAD + "epoch: 1\nspace:\n  rnk@head: 3\n", "f.yaml:7: space.rnk@head: not a parameter; did you mean 'rank'?"),
        (HEAD + SPACE + "fixed: {rank@*: 4}\n", "f.yaml:6: fixed.rank@*: the pattern '*' matches every layer"),
        (HEAD + SPACE + "fixed: {rank@a b: 4}\n", "fixed.rank@a b: 'a b' is no pattern of module names"),
        (HEAD + SPACE + "fixed: {rank@head: 0}\n", "f.yaml:6: fixed.rank@head: 0: must be ≥ 1"),
        (
            HEAD + "space: {rank@head: {low: 1, high: 4}}\nfixed: {granularity@head: kron}\n",
            "f.yaml:5: space.rank@head: has no meaning where granularity@head=kron; add `when: {granularity@head: input}`",
        ),
        (
            HEAD + "space:\n  granularity: {choices: [kron, input]}\n  rank@head: {low: 1, high: 4}\n",
            "f.yaml:7: space.rank@head: has no meaning where granularity=kron; add `when: {granularity: input}`",
        ),
        (
            HEAD
            + "space:\n  granularity@a: {choices: [kron, input]}\n  rank@b: {low: 1, high: 4, when: {granularity@a: input}}\n"
            "fixed: {root@b: eigh}\n",
            "f.yaml:7: space.rank@b: has no meaning where root@b=eigh; add `when: {root@b: nystrom}`",
        ),
        (
            HEAD + "space:\n  granularity@head: {choices: [input, block]}\n  root@head: {choices: [nystrom, eigh]}\n",
            "f.yaml:5: space: the combination granularity@head=block,root@head=nystrom is no valid trial: layers head: root='nystrom'",
        ),
        (
            HEAD
            + "space:\n  rank: {choices: [4, 8]}\n  rank@head: {low: 1, high: 4, when: {granularity@head: input}}\n",
            "f.yaml:7: space.rank@head.when.granularity@head: 'granularity@head' is neither in the space nor fixed",
        ),
        (
            HEAD + "space:\n  granularity@[02]: {choices: [kron, input]}\n  rank@[02]: {low: 1, high: 4}\n",
            'f.yaml:7: space.rank@[02]: has no meaning where granularity@[02]=kron; add `when: {"granularity@[02]": input}`',
        ),
        (
            HEAD + SPACE + "fixed: {granularity@head: kron, rank@head: 4}\n",
            "f.yaml:6: fixed.rank@head: 4: has no meaning anywhere in this space",
        ),
        (LAYERED + "  - {block@0: 8}\n", "start.1.block@0: 8: needs granularity@0=block beside it"),
        (LAYERED + "  - {rank@stem: 8}\n", "start.1.rank@stem: 8: not in the space; did you mean 'rank@0'?"),
        (
            HEAD + SPACE + "search: {sampler: brute_force}\n",
            "f.yaml:6: search.sampler: 'brute_force': needs choices or a step for lr",
        ),
        (
            HEAD + SPACE + "objectives: [validation_loss, training_seconds]\nsearch: {sampler: cmaes}\n",
            "f.yaml:7: search.sampler: 'cmaes': knows one objective, not 2",
        ),
        (
            HEAD + SPACE + "objectives: [validation_loss, training_seconds]\nsearch: {scheduler: {name: asha}}\n",
            "search.scheduler: asha stops by one metric",
        ),
        (
            HEAD + SPACE + "search: {scheduler: {grace_epochs: 5}}\n",
            "f.yaml:6: search.scheduler.grace_epochs: 5: must be ≤ epochs=4",
        ),
    ],
)
def test_bad_input_is_named_with_line_path_and_remedy(text: str, expected: str) -> None:
    assert expected in "\n".join(errors_of(text))


def test_all_errors_are_listed_at_once_in_the_order_of_the_file() -> None:
    text = textwrap.dedent("""\
        schema: 1
        nme: x
        workload: w
        epochs: 0
        space:
          lr: {low: 2, high: 1}
          blok: {choices: [8]}
        search: {trials: many}
        """)
    assert [line.split(": ")[0:2] for line in errors_of(text)] == [
        ["f.yaml:1", "name"],
        ["f.yaml:2", "nme"],
        ["f.yaml:4", "epochs"],
        ["f.yaml:6", "space.lr"],
        ["f.yaml:7", "space.blok"],
        ["f.yaml:8", "search.trials"],
    ]


def test_numbers_in_every_spelling_are_numbers() -> None:
    config = parse_study(HEAD + "space: {lr: {low: 1e-3, high: 1.5E+1}}\nfixed: {weight_decay: 2e0}\n", "f.yaml")
    assert (config.space["lr"][0].low, config.space["lr"][0].high, config.fixed["weight_decay"]) == (1e-3, 15.0, 2.0)


def test_overrides_change_add_and_replace() -> None:
    overrides = ["search.trials=8", "space.lr.high=0.5", "fixed.batch_size=64", "search.scheduler={name: none}"]
    config = parse_study(HEAD + SPACE, "f.yaml", overrides)
    assert (config.search.trials, config.space["lr"][0].high, config.fixed["batch_size"]) == (8, 0.5, 64)
    assert config.scheduler.name == "none"
    assert parse_study(CONDITIONAL, "f.yaml", ["space.lr.1.high=1e-3"]).space["lr"][1].high == 1e-3


def test_overrides_reach_single_layers_whose_names_have_dots() -> None:
    text = HEAD + "space:\n  rank@encoder.0: {low: 1, high: 4}\n  rank@encoder.0.*: {low: 1, high: 4}\n"
    overrides = [
        "space.rank@encoder.0.high=8",
        "space.rank@encoder.0.*.high=16",
        "fixed.decay@encoder.*.head=0.5",
        "space.block@stem={low: 2, high: 4, when: {granularity@encoder.1: block}}",
        "space.block@stem.when.granularity@stem=block",
        "space.granularity@stem={choices: [block, input]}",
        "fixed.granularity@encoder.1=block",
    ]
    config = parse_study(text, "f.yaml", overrides)
    assert {name: entries[0].high for name, entries in config.space.items() if name[:4] == "rank"} == {
        "rank@encoder.0": 8,
        "rank@encoder.0.*": 16,
    }
    assert config.fixed == {"decay@encoder.*.head": 0.5, "granularity@encoder.1": "block"}
    assert config.space["block@stem"][0].when == {"granularity@encoder.1": ("block",), "granularity@stem": ("block",)}
    assert config.patterns == ("encoder.*.head", "encoder.1", "encoder.0", "encoder.0.*", "stem")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.trials", "--set search.trials: must read path.to.key=value"),
        ("=8", "--set =8: must read path.to.key=value"),
        ("search.trials=[1", "is not readable as YAML"),
        ("name.x=1", "--set name.x=1: name is 'small', which has no keys"),
        ("start.0=1", "--set start.0=1: start is a list of 0; '0' must be a number below that"),
        ("search.trails=8", "--set search.trails=8: search.trails: unknown key; did you mean 'trials'?"),
        ("search.trials=x", "--set search.trials=x: search.trials: 'x': must be a valid integer"),
        ("space.lr.high=1e-4", "f.yaml:5: space.lr: low=0.001: must be < high=0.0001; a single value belongs under fixed (changed by --set space.lr.high=1e-4)"),
        ("space.lr={low: 2, high: 1}", "--set space.lr={low: 2, high: 1}: space.lr: low=2: must be < high=1"),
    ],
)  # fmt: skip
def test_errors_of_overrides_are_placed_at_the_override(override: str, expected: str) -> None:
    assert expected in "\n".join(errors_of(HEAD + SPACE + "start: []\n", override))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, reason in [
        ("missing.yaml", "No such file"),
        (".", "Is a directory"),
        ("binary.yaml", "not readable as UTF-8"),
    ]:
        with pytest.raises(ConfigurationError, match=reason):
            load_study(tmp_path / name)


@given(st.text() | st.text(alphabet="{}[]:,&*!|>-?#'\"% \n\t0123456789.eE_abc", max_size=60))
def test_any_text_is_a_study_or_a_configuration_error(text: str) -> None:
    try:
        parse_study(HEAD + SPACE + text, "f.yaml")
    except ConfigurationError as error:
        assert str(error)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3), max_leaves=6
)
paths = st.sampled_from(
    ["schema", "epochs", "objectives", "fixed", "fixed.lr", "space", "space.lr", "space.lr.low", "space.rank", "space.base.when",
     "space.root.choices", "start", "search", "search.scheduler", "search.resources.cpus", "confirm", "mlflow.tracking_uri"]
)  # fmt: skip


@given(paths, values)
def test_any_value_anywhere_is_a_study_or_a_configuration_error(path: str, value: object) -> None:
    data = yaml.safe_load(HEAD + SPACE)
    *parents, last = path.split(".")
    target = data
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = value
    try:
        assert parse_study(yaml.safe_dump(data, allow_unicode=True), "f.yaml").schema_version == 1
    except ConfigurationError as error:
        assert all(line.startswith("f.yaml") for line in str(error).splitlines())

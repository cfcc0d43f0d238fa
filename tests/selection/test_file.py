"""A file that keeps a selection: it trains, it is read back as it was, and what is wrong with it is said."""

import copy
import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.selection import (
    Alternative,
    LayerChoice,
    LayerProbe,
    RatePoint,
    SelectionRecord,
    StepTime,
    pattern_of,
)
from sngd_tune.selection.file import load, save, usage
from sngd_tune.selection.select import Selection
from sngd_tune.settings import FisherSettings
from tests.selection.samples import DENSE, LOW_RANK, choice, plain_choice, probe, renamed, selection

text = st.text(max_size=8)
measured = st.one_of(st.just(math.nan), st.just(math.inf), st.floats(min_value=0))
timed = st.one_of(st.just(math.inf), st.floats(min_value=0, exclude_min=True))
finite = st.floats(min_value=1e-300, max_value=1e300)
counts = st.integers(1, 1 << 40)
by_age = st.dictionaries(st.integers(1, 512), measured, max_size=2)
by_rank = st.dictionaries(st.integers(1, 512), st.floats(0, 1), max_size=2)
fisher = st.one_of(
    st.sampled_from((FisherSettings(granularity="block:32", kl_bound=0.5), FisherSettings(positions=7), DENSE)),
    st.builds(FisherSettings, relative_damping=finite, rank=counts, retained_trace=st.floats(0.1, 1)),
)
alternatives = st.builds(
    Alternative, name=text, relative_damping=finite, gain=measured, seconds=st.floats(), bytes=counts
)


@st.composite
def choices(draw: st.DrawFn, layer: str) -> LayerChoice:
    chosen = draw(st.none() | fisher)
    name = "none" if chosen is None else draw(text.filter(lambda name: name != "none"))
    found = draw(st.lists(alternatives, max_size=1))
    figures = {"gain": draw(measured), "seconds": draw(st.floats()), "bytes": draw(counts)}
    return LayerChoice(layer=layer, settings=chosen, name=name, reason=draw(text), alternatives=tuple(found), **figures)


def probes(layer: str) -> st.SearchStrategy[LayerProbe]:
    figures = (
        "effective_rank",
        "condition_number",
        "batch_noise",
        "least_damping",
        "output_effective_rank",
        "progress",
    )
    return st.builds(
        LayerProbe,
        layer=st.just(layer),
        module=text,
        inputs=counts,
        outputs=counts,
        matrices=counts,
        positions=measured,
        retained_trace=by_rank,
        drift=by_age,
        retained_gain=by_rank,
        output_gain=st.none() | measured,
        **dict.fromkeys(figures, measured),
    )


@st.composite
def selections(draw: st.DrawFn) -> SelectionRecord:
    names = draw(
        st.lists(st.one_of(st.sampled_from(("", "0", "a[0]", "*", "null", "1e3")), text), max_size=2, unique=True)
    )
    rates = st.builds(RatePoint, lr=finite, weight_decay=finite, steps=counts, loss=st.floats(), step_seconds=measured)
    return SelectionRecord(
        subject=draw(text),
        batch_size=draw(finite),
        optimizer={"base": "adamw", "lr": draw(finite), "weight_decay": draw(st.just(0.0) | finite)},
        lr_schedule=draw(text),
        layers=tuple(draw(choices(name)) for name in names),
        probes=tuple(draw(probes(name)) for name in names),
        step=draw(st.builds(StepTime, sgd=timed, plain=timed, predicted=timed, measured=st.none() | timed)),
        step_budget=draw(st.none() | st.floats(1, 1e9)),
        memory_budget=draw(st.none() | counts),
        gain=draw(measured),
        bound=draw(measured),
        rates=tuple(draw(st.lists(rates, max_size=2))),
        seconds=draw(st.floats(0, 1e9)),
        device=draw(text),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selection")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record=selections())
@example(record=selection(subject="a\x85b", device="\u2028\ufeff"))  # ends of lines, to some readers
def test_what_was_written_is_read_back_whole(folder: Path, record: SelectionRecord) -> None:
    save(record, folder / "any.yaml")
    assert repr(load(folder / "any.yaml")) == repr(record)  # NaN equals itself there


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "auto.yaml"
    save(selection(), path)
    return path


def test_a_selection_is_saved_and_made_again(tmp_path: Path) -> None:
    Selection(selection()).save(tmp_path / "auto.yaml")
    again = Selection(load(tmp_path / "auto.yaml"))
    assert dict(again) == {"0": LOW_RANK, "4": DENSE}
    assert again.optimizer == {"base": "adamw", "lr": 0.02, "weight_decay": 0.01}
    assert math.isnan(again.record.rates[-1].loss)


def test_the_top_has_the_keys_of_a_recipe_and_the_lines_that_use_it(path: Path) -> None:
    text, found = path.read_text(encoding="utf-8"), yaml.safe_load(path.read_text(encoding="utf-8"))
    assert text.startswith("# Settings selected for digits_mlp\n#\n# import yaml\n")
    assert all(f"# {line}" in text for line in usage("auto.yaml").splitlines())
    assert list(found) == ["workload", "optimizer", "batch_size", "lr_schedule", "sngd", "fisher", "selection"]
    assert found["sngd"] == {"base": "adamw", "lr": 0.02, "weight_decay": 0.01}
    assert found["fisher"] == {"0": LOW_RANK.to_dict(), "2": "none", "4": DENSE.to_dict()}
    assert found["selection"]["schema"] == 1


def nested() -> nn.Module:
    return nn.Sequential(nn.ModuleDict({"a[0]": nn.Linear(3, 3), "a0": nn.Linear(3, 3), "*": nn.Linear(3, 3)}))


@pytest.mark.parametrize(
    ("model", "names", "expected"),
    [
        (
            lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)),
            None,
            ["0", "4"],
        ),
        (lambda: nn.Linear(3, 2), ("", "other", "another"), [""]),
        (nested, ("0.a[0]", "0.a0", "0.*"), ["0.a[0]", "0.*"]),
    ],
)
def test_the_printed_lines_give_each_layer_its_settings(
    model: Callable[[], nn.Module], names: tuple[str, str, str] | None, expected: list[str], tmp_path: Path
) -> None:
    record = selection() if names is None else renamed(selection(), names)
    scope: dict[str, Any] = {"model": model()}
    modules = dict(scope["model"].named_modules())
    path = tmp_path / 'the "best".yaml'
    save(dataclasses.replace(record, layers=tuple(each for each in record.layers if each.layer in modules)), path)
    exec(usage(path), scope)
    optimizer = scope["optimizer"]
    assert {name: layer.settings for name, layer in optimizer.layers.items()} == {
        name: record.settings[pattern_of(name)] for name in expected
    }
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
    scope["schedule"].at(0.05)  # the warm-up is over
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_a_value_changed_by_hand_counts(path: Path) -> None:
    changed = path.read_text(encoding="utf-8").replace("lr: 0.02\n", "lr: 1\n").replace("rank: 8\n", "rank: 5\n")
    path.write_text(changed, encoding="utf-8")
    record = load(path)
    assert record.optimizer["lr"] == 1.0
    assert record.settings["0"] == dataclasses.replace(LOW_RANK, rank=5)


def test_a_layer_whose_settings_are_taken_away_by_hand_has_none(path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["fisher"]["0"] = "none"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    record = load(path)
    assert (record.layers[0].settings, record.layers[0].name) == (None, "none")
    assert list(record.settings) == ["4"]


def test_a_comment_holds_any_name(tmp_path: Path) -> None:
    record = selection(subject="my\nproblem: \x07\u2028'\x85 # {")
    save(record, tmp_path / "a\x7fb.yaml")
    assert load(tmp_path / "a\x7fb.yaml").subject == record.subject


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "taken.yaml").mkdir()
    for path in (tmp_path / "taken.yaml", tmp_path / "missing" / "auto.yaml"):
        with pytest.raises(ConfigurationError, match=r"yaml: cannot be written \(.*\); choose another path"):
            save(selection(), path)
    assert [each.name for each in tmp_path.iterdir()] == ["taken.yaml"]


Change = Callable[[dict[str, Any]], object]

WRONG: dict[str, tuple[Change, str]] = {
    "no selection": (lambda v: v.pop("selection"), "'selection' is missing"),
    "a study's recipe": (lambda v: (v.pop("selection"), v.pop("workload")), "'selection' is missing: no selection"),
    "another optimizer": (lambda v: v.update(optimizer="adamw"), "optimizer: 'adamw': must be 'sngd'"),
    "another version": (lambda v: v["selection"].update(schema=2), "selection.schema: 2: this sngd_tune reads 1"),
    "no version": (lambda v: v["selection"].pop("schema"), "selection.schema: None"),
    "no gain": (lambda v: v["selection"].pop("gain"), "selection: 'gain' is missing"),
    "an unknown key": (lambda v: v["selection"].update(gian=1), "selection: 'gian' is unknown; known are subject"),
    "no mapping": (lambda v: v.update(selection=[1]), r"selection: \[1\]: must be a mapping"),
    "no layers": (lambda v: v["selection"].update(layers=7, probes=[]), "selection.layers: 7: must be a list"),
    "a layer too many": (lambda v: v["fisher"].update(x={}), "fisher: 'x' is no layer of the selection"),
    "settings lost": (lambda v: v["fisher"].pop("0"), "fisher: has nothing for layer '0'; 'none' stands for no local"),
    "settings for none": (lambda v: v["fisher"].update({"2": {}}), "fisher: '2': must be 'none', as that is what"),
    "a wrong setting": (lambda v: v["fisher"]["0"].update(rank=0), "layers.0..settings: rank=0: must be an integer"),
    "an unknown setting": (lambda v: v["fisher"]["0"].update(rnak=1), "'rnak': not a Fisher setting"),
    "a word for a number": (
        lambda v: v["sngd"].update(lr="1e-2"),
        "optimizer.lr: '1e-2': must be a number; YAML reads",
    ),
    "a rate of zero": (lambda v: v["sngd"].update(lr=0), "optimizer.lr: 0: must be finite and > 0"),
    "an infinite rate": (lambda v: v["sngd"].update(lr=math.inf), "optimizer.lr: inf: must be finite and > 0"),
    "a negative gain": (
        lambda v: v["selection"]["layers"][0].update(gain=-1.0),
        r"layers\[0\].gain: -1.0: must be ≥ 0",
    ),
    "a share over 1": (
        lambda v: v["selection"]["probes"][0]["retained_trace"].update({4: 1.5}),
        r"probes\[0\].retained_trace.4: 1.5: must be in \[0, 1\]",
    ),
    "half an input": (lambda v: v["selection"]["probes"][0].update(inputs=1.5), "inputs: 1.5: must be a whole number"),
    "true for a number": (lambda v: v["selection"].update(gain=True), "gain: True: must be a number"),
    "a budget below 1": (lambda v: v["selection"].update(step_budget=0.9), "step_budget: 0.9: must be finite and ≥ 1"),
    "a number beyond all": (lambda v: v["selection"].update(bound=10**400), "a number is too large"),
    "no list of rates": (lambda v: v["selection"].update(rates={}), r"rates: \{\}: must be a list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said(case: str, path: Path) -> None:
    change, message = WRONG[case]
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "correct it there, or write the file anew with `sngd-tune auto`" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "no readable YAML"),
        (b"\xff\xfe\x00", "no readable YAML"),
        (b"a: \x07", "no readable YAML"),
        (b"a: 2001-99-99", "no readable YAML"),
        (b"[" * 2000, "no readable YAML"),
        (b"", "'optimizer' is missing: no selection"),
        (b"- 1", "'optimizer' is missing: no selection"),
    ],
)
def test_what_is_no_selection_at_all(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "auto.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        load(tmp_path / "nowhere.yaml")


def places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value of nested ones, by its path."""
    yield place
    found = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in found:
        yield from places(value, (*place, key))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), text, st.just([]), st.just({}), st.just([[{}]])
)


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Any]:
    small = selection(layers=(choice(alternatives=()), plain_choice("2", alternatives=())), probes=(probe(),))
    save(small, folder / "plain.yaml")
    found: dict[str, Any] = yaml.safe_load((folder / "plain.yaml").read_text(encoding="utf-8"))
    return found


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_is_taken_or_refused_in_words(
    plain: dict[str, Any], folder: Path, data: st.DataObject
) -> None:
    values = copy.deepcopy(plain)
    place = data.draw(st.sampled_from(list(places(values))[1:]))
    target = values
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = data.draw(scalars)
    (folder / "changed.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        record = load(folder / "changed.yaml")
    except ConfigurationError:
        return
    save(record, folder / "again.yaml")
    assert repr(load(folder / "again.yaml")) == repr(record)


def test_reading_and_writing_need_no_torch() -> None:
    program = "import sys; import sngd_tune.selection.file; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
FOUND = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
MEASURING = [block for block in FOUND if "select_settings(" in block]  # takes the seconds that it is given
BLOCKS = [block for block in FOUND if block not in MEASURING]


def test_python_blocks_run_one_after_another(capsys):
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"{part} local Fisher block:16, cholesky, every 50" for part in ("0.weight", "0.bias", "2.weight", "2.bias")
    ]
    workload = names["MyProblem"]()
    splits = workload.load(None)
    assert workload.model()(names["torch"].from_numpy(splits.train.inputs)).shape == splits.train.targets.shape


@pytest.mark.slow
def test_settings_that_are_chosen_train(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (block,) = MEASURING
    names: dict[str, object] = {}
    exec(compile(block, str(README), "exec"), names)
    model, optimizer, batches = (names[name] for name in ("model", "optimizer", "batches"))
    loss_fn = names["torch"].nn.MSELoss()
    losses = []
    for inputs, targets in batches * 5:
        optimizer.zero_grad()
        losses.append(loss_fn(model(inputs), targets))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]


def test_names_in_the_readme_exist():
    """Files, study files and make targets that the text names."""
    text = README.read_text(encoding="utf-8")
    root = README.parent
    for path in set(re.findall(r"(?:search_spaces|sngd_tune)/[\w./]+\w", text)):
        assert (root / path).exists(), path
    targets = (root / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (demo|test|lint|help)\b", text)):
        assert re.search(rf"^{target}:", targets, flags=re.MULTILINE), target


def test_the_tests_that_the_table_of_faults_names_exist():
    tests = README.parent / "tests"
    defined = {
        name for path in tests.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = {
        name
        for line in README.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
        for name in re.findall(r"`(test_\w{20,})`", line)
    }
    assert len(named) >= 18
    assert named <= defined


def test_first_screen_has_the_two_commands():
    first = README.read_text(encoding="utf-8").splitlines()[:12]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)

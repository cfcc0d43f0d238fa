"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


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


def test_names_in_the_readme_exist():
    """Files, study files and make targets that the text names."""
    text = README.read_text(encoding="utf-8")
    root = README.parent
    for path in set(re.findall(r"(?:search_spaces|sngd_tune)/[\w./]+\w", text)):
        assert (root / path).exists(), path
    targets = (root / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (demo|test|lint|help)\b", text)):
        assert re.search(rf"^{target}:", targets, flags=re.MULTILINE), target


def test_first_screen_has_the_two_commands():
    first = README.read_text(encoding="utf-8").splitlines()[:12]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)

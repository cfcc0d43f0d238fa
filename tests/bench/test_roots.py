import gc
import json

import pytest
import torch
from typer.testing import CliRunner

from sngd_tune.bench import roots
from sngd_tune.bench.interleave import median_ratio
from sngd_tune.bench.roots import ENTRANTS, SPECTRA, Entrant, Spectrum, measure
from sngd_tune.cli import app
from sngd_tune.core.roots import DENSE_ROOTS, cholesky
from sngd_tune.errors import RootError

FIGURES = {
    "task",
    "size",
    "spectrum",
    "root",
    "threads",
    "condition_number",
    "milliseconds",
    "ratio_to_cholesky",
    "lower_quartile",
    "upper_quartile",
    "residual",
}


def by_root(rows, spectrum):
    return {row["root"]: row for row in rows if row["spectrum"] == spectrum}


@pytest.fixture(scope="module")
def rows():
    return measure([24], rounds=2)


def invoke(*arguments):
    result = CliRunner().invoke(app, ["bench", "roots", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_every_root_has_its_row_and_every_row_its_figures(rows):
    assert set(DENSE_ROOTS) | {"newton_schulz, warm", "nystrom, rank 16", "nystrom, rank 64"} == set(ENTRANTS)
    assert [(row["spectrum"], row["root"]) for row in rows] == [(s, root) for s in SPECTRA for root in ENTRANTS]
    for row in rows:
        assert set(row) == FIGURES
        assert row["milliseconds"] > 0
        assert row["lower_quartile"] <= row["ratio_to_cholesky"] <= row["upper_quartile"]
    assert all(by_root(rows, spectrum)["cholesky"]["ratio_to_cholesky"] == 1 for spectrum in SPECTRA)


def test_the_condition_number_is_that_of_the_damped_matrix(rows):
    damping = 1e-2 * sum(i**-2 for i in range(1, 25)) / 24
    expected = (1 + damping) / (24**-2 + damping)
    assert by_root(rows, "inverse-square")["eigh"]["condition_number"] == pytest.approx(expected, rel=0.05)


def test_residuals_are_those_of_float32(rows):
    """Some rounding errors times the condition number; those of a sketch against the low-rank view, tail and all."""
    for row in rows:
        assert 0 < row["residual"] < 20 * torch.finfo(torch.float32).eps * row["condition_number"], row


def test_the_residual_of_a_low_rank_root_is_not_what_the_rank_leaves_out():
    spectrum = Spectrum(lambda size: torch.linspace(1, 0.1, size, dtype=torch.float64), 1e-2)
    problem = roots._Problem.of(spectrum, roots._orthogonal(12, 12))
    root = ENTRANTS["nystrom, rank 16"].prepare(problem._matrix().float(), problem.damping.float())()
    assert problem._residual(root, 16) < 1e-5
    assert problem._residual(root, 4) > 0.1
    view = torch.linalg.eigvalsh(problem._matrix(4))
    torch.testing.assert_close(view[:8], problem.eigenvalues[4:].mean().expand(8))


def test_a_root_that_fails_is_a_row_of_its_own(monkeypatch):
    def fails(G, damping):
        raise RootError("no root today; raise relative_damping")

    monkeypatch.setattr(roots, "ENTRANTS", {"cholesky": ENTRANTS["cholesky"], "fails": Entrant(fails)})
    told = []
    found = by_root(measure([5], rounds=1, announce=told.append), "inverse-square")
    assert found["fails"]["failed"] == "no root today; raise relative_damping"
    assert set(found["fails"]) == {"task", "size", "spectrum", "root", "threads", "condition_number", "failed"}
    assert found["cholesky"]["milliseconds"] > 0
    assert told == ["size 5, inverse-square", "size 5, condition-1e10"]


def test_without_the_root_that_others_are_compared_with_there_is_no_bench(monkeypatch):
    indefinite = Spectrum(lambda size: -torch.ones(size, dtype=torch.float64), 1e-2)
    monkeypatch.setattr(roots, "SPECTRA", {"indefinite": indefinite})
    with pytest.raises(RootError, match="cholesky: G \\+ λI is not positive definite"):
        measure([5], rounds=1)
    assert gc.isenabled()


def test_larger_matrices_get_fewer_rounds_but_two(monkeypatch):
    seen = {}
    monkeypatch.setattr(roots, "_orthogonal", lambda size, columns: torch.eye(size, columns, dtype=torch.float64))
    monkeypatch.setattr(roots._Problem, "rows", lambda self, rounds: seen.setdefault(len(self.V), rounds) and [])
    measure([64, 256, 1024], rounds=8)
    assert seen == {64: 8, 256: 4, 1024: 2}
    seen.clear()
    measure([1024], rounds=1)
    assert seen == {1024: 1}


def test_threads_are_given_back():
    before = torch.get_num_threads()
    (row,) = (
        row for row in measure([4], 1, before + 1) if (row["root"], row["spectrum"]) == ("eigh", next(iter(SPECTRA)))
    )
    assert row["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_json_on_standard_output_and_progress_on_the_other():
    result = invoke("--sizes", "3", "--sizes", "4", "--rounds", "1", "--format", "json")
    found = json.loads(result.stdout)
    assert (result.exit_code, set(found), found["schema"]) == (0, {"schema", "rows"}, 1)
    assert [row["size"] for row in found["rows"]] == [size for size in (3, 4) for _ in SPECTRA for _ in ENTRANTS]
    assert all(set(row) == FIGURES for row in found["rows"])
    assert "size 4, condition-1e10" in result.stderr


@pytest.mark.parametrize("option", ["--sizes", "--threads", "--rounds"])
def test_what_is_not_positive_is_refused(option):
    result = invoke(option, "0")
    assert result.exit_code == 2
    assert option in result.stderr


def test_a_root_is_used_as_the_first_step_after_a_refresh_does():
    """The inverse is formed lazily, so a root that is computed alone would look cheaper than it is."""
    made = []

    def compute():
        made.append(cholesky(torch.eye(3), torch.tensor(0.1)))
        return made[-1]

    roots._use(compute, torch.rand(1, 3))
    assert "_inverse" in vars(made[0])


def test_quartiles_of_two_rounds_lie_between_them():
    assert median_ratio([1.0, 9.0], [1.0, 1.0]) == (5.0, 3.0, 7.0)
    assert median_ratio([2.0], [1.0]) == (2.0, 2.0, 2.0)

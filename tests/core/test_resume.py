"""A run that is resumed from its checkpoint is the uninterrupted run, bit for bit, for every combination on offer.

What a combination needs to be put to the test is in `Run`; checkpoints hold tensors and numbers alone (`on_disk`).
"""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, FisherSettings, observe_outputs, reconstruct
from sngd_tune.settings import DAMPING_POLICIES, FISHERS, REFRESH_SCHEDULES, ROOT_SCALES, ROOTS
from tests.core.behaviour import BASES, FORMS, TORCH_OPTIMIZERS, on_disk, same
from tests.core.problems import squared_error

INPUT_SIDE, OUTPUT_SIDE = ("diagonal", "block:2", "input"), ("unit", "kron", "layer")
#: Granularity, root and kind of Fisher matrix. A diagonal has one root; ``"nystrom"`` is of ``"input"`` alone.
KEPT = [
    (granularity, root, fisher)
    for granularity, root in product((*INPUT_SIDE, *OUTPUT_SIDE), ROOTS)
    if (root != "nystrom" or granularity == "input") and (root == "cholesky" or granularity != "diagonal")
    for fisher in (FISHERS if granularity in OUTPUT_SIDE else FISHERS[:1])
]
#: Schedule, damping policy and scale of the root, which Levenberg-Marquardt damping refuses to be ``"unit"``.
POLICIES = [
    (schedule, policy, scale)
    for schedule, policy, scale in product(REFRESH_SCHEDULES, DAMPING_POLICIES, ROOT_SCALES)
    if policy == "fixed" or scale == "natural"
]
IN_ANOTHER_PROCESS = [
    ("input", "nystrom", "empirical"),
    ("input", "newton_schulz", "empirical"),
    ("kron", "eigh", "sampled"),
    ("unit", "cholesky", "exact"),
]
BEFORE, AFTER = 6, 5


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2, bias=False)).double()


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randn(8, d, generator=generator, dtype=torch.float64) for d in (4, 2)) for _ in range(count)]


def in_short(kept):
    return "-".join(kept)


class Run:
    """A model in training; one with another `seed` is to take over the state of another.

    Args:
        form: `FORMS`.
        base: `BASES`.
        kept: granularity, root, fisher.
        policies: refresh schedule, damping policy, scale of the root.
        seed: of all that a checkpoint brings along.
    """

    def __init__(self, form, base, kept, policies=("thinning", "fixed", "natural"), seed=0):
        granularity, root, fisher = kept
        schedule, damping, scale = policies
        settings = FisherSettings(
            granularity=granularity,
            root=root,
            fisher=fisher,
            rank=2 if root == "nystrom" else None,
            refresh_schedule=schedule,
            damping_policy=damping,
            root_scale=scale,
            relative_damping=0.1,
            fisher_interval=3,
            statistics_interval=2,
            warmup_batches=1,
            drift_threshold=0.05,
        )
        self.model, self._fused = network(seed), form == "fused"
        if self._fused:
            self.optimizer = SNGD(self.model, settings, lr=1e-2 if not seed else 0.5, seed=seed, **BASES[base])
        else:
            self.model = reconstruct(self.model, settings, seed=seed)
            self.optimizer = TORCH_OPTIMIZERS[base](self.model.parameters(), 1e-2)

    def train(self, data):
        for x, y in data:

            def closure(x=x, y=y):
                self.optimizer.zero_grad()
                outputs = self.model(x)
                if self._fused:
                    self.optimizer.observe_outputs(outputs, "gaussian")
                else:
                    observe_outputs(self.model, outputs, "gaussian")
                loss = squared_error(outputs, y)
                loss.backward()
                return loss

            self.optimizer.step(closure)

    def take(self, saved):
        self.model.load_state_dict(saved[0])
        self.optimizer.load_state_dict(saved[1])
        return self

    @property
    def refreshes(self):
        if self._fused:
            return [layer.refreshes for layer in self.optimizer.layers.values()]
        return [self.model[i].fishers[0].refreshes for i in (0, 2)]


def resumes(data, **of):
    """Whether a run with these arguments goes on from its checkpoint as without a stop."""
    run = Run(**of)
    run.train(data[:BEFORE])
    saved, before = on_disk(run.model, run.optimizer), run.refreshes
    again = Run(**of, seed=3).take(saved)
    run.train(data[BEFORE:])
    again.train(data[BEFORE:])
    assert max(before) > 0
    return same(run.model, again.model) and run.refreshes == again.refreshes


#: Base optimizer and policies; the explicit form refuses Levenberg-Marquardt damping.
COMBINATIONS = {
    "fused": list(product(BASES, POLICIES)),
    "explicit": [(base, policies) for base, policies in product(BASES, POLICIES) if policies[1] == "fixed"],
}


def broken(form, kept, combinations):
    data = batches(BEFORE + AFTER)
    return [c for c in combinations if not resumes(data, form=form, base=c[0], kept=kept, policies=c[1])]


@pytest.mark.parametrize("kept", KEPT, ids=in_short)
def test_all_that_is_kept_with_forms_and_policies_by_turns(kept):
    place = KEPT.index(kept)
    form = list(FORMS)[place % 2]
    turns = COMBINATIONS[form]
    assert not broken(form, kept, [turns[5 * place % len(turns)]])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", KEPT, ids=in_short)
def test_every_combination(kept, form):
    assert not broken(form, kept, COMBINATIONS[form])


CASES = list(product(FORMS, BASES, IN_ANOTHER_PROCESS))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What all `CASES` come to in another process, from their checkpoints, beside the uninterrupted runs."""
    directory = tmp_path_factory.mktemp("resume")
    finished = []
    for i, case in enumerate(CASES):
        run = Run(*case)
        run.train(batches(BEFORE + AFTER)[:BEFORE])
        torch.save([run.model.state_dict(), run.optimizer.state_dict()], directory / f"{i}.pt")
        run.train(batches(BEFORE + AFTER)[BEFORE:])
        finished.append(run.model)
    command = [sys.executable, "-m", "tests.core.test_resume", str(directory)]
    # Another order of sets and dictionaries of names, if any were to matter.
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, timeout=120)
    found = [torch.load(directory / f"{i}-resumed.pt", weights_only=True) for i in range(len(CASES))]
    return dict(zip(CASES, zip(finished, found, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{in_short(case[2])}")
def test_another_process_goes_on_bit_for_bit(elsewhere, case):
    expected, found = elsewhere[case]
    assert all(map(torch.equal, found, expected.parameters()))


def test_a_scheduler_and_parameters_that_joined_later_resume_too():
    def build(seed):
        run, scale = Run("fused", "adamw", ("input", "eigh", "empirical"), seed=seed), nn.Parameter(torch.ones(()))
        run.optimizer.add_param_group({"params": [scale], "lr": 0.1})
        return run, torch.optim.lr_scheduler.OneCycleLR(run.optimizer, max_lr=[0.1, 0.2], total_steps=14), scale

    def train(run, scheduler, scale, data):
        for x, y in data:
            run.optimizer.zero_grad()
            squared_error(scale * run.model(x), y).backward()
            run.optimizer.step()
            scheduler.step()

    data = batches(13)
    run, scheduler, scale = build(0)
    train(run, scheduler, scale, data[:6])
    saved, value = on_disk(run.model, run.optimizer, scheduler), scale.detach().clone()
    again, resumed, other = build(5)
    again.take(saved)
    resumed.load_state_dict(saved[2])
    other.data.copy_(value)
    train(run, scheduler, scale, data[6:])
    train(again, resumed, other, data[6:])
    assert same(run.model, again.model)
    assert torch.equal(scale, other)
    assert scale != 1
    assert [g["lr"] for g in run.optimizer.param_groups] == [g["lr"] for g in again.optimizer.param_groups]


def main(directory: Path) -> None:
    """The other process."""
    for i, case in enumerate(CASES):
        run = Run(*case, seed=3).take(torch.load(directory / f"{i}.pt", weights_only=True))
        run.train(batches(BEFORE + AFTER)[BEFORE:])
        torch.save([parameter.detach() for parameter in run.model.parameters()], directory / f"{i}-resumed.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

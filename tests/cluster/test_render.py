"""`sngd-tune cluster render`: what it writes is what the published schemas want, and bad answers write nothing."""

import json
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler._private.util as ray_up
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sngd_tune.cluster.images import unpinned
from sngd_tune.cluster.render import PLACES, render, write
from sngd_tune.cluster.rules import breaches, read_documents
from tests.cluster.places import FEWEST, ROOT, documents, rendered
from tests.cluster.schemas import check_kubernetes
from tests.commands import invoke

every_place = pytest.mark.parametrize("place", PLACES)
few_and_all = pytest.mark.parametrize("full", [False, True], ids=["fewest", "all"])


def as_settings(answers: dict[str, Any]) -> list[str]:
    return [word for name, value in answers.items() for word in ("--set", f"{name}={value}")]


@every_place
@few_and_all
def test_what_is_written_breaks_no_rule(place: str, full: bool) -> None:
    assert rendered(place, full).breaches == []


@few_and_all
def test_kubernetes_and_kuberay_accept_each_object(full: bool) -> None:
    found = documents("kuberay", full)
    assert {data["kind"] for _, data in found} >= {"RayCluster", "RayJob", "NetworkPolicy", "Deployment", "StatefulSet"}
    for _, data in found:
        check_kubernetes(data)


@pytest.mark.parametrize("place", ["aws", "gcp"])
@few_and_all
def test_ray_up_accepts_the_file(place: str, full: bool) -> None:
    ((_, data),) = documents(place, full)
    prepared = ray_up.prepare_config(data)
    ray_up.validate_config(prepared)
    assert prepared["docker"] == data["docker"]
    assert prepared["setup_commands"] == []  # nothing of the defaults is installed
    assert not any("0.0.0.0" in command for command in prepared["head_start_ray_commands"])


@every_place
@few_and_all
def test_scripts_and_printed_commands_are_sound_shell(place: str, full: bool, tmp_path: Path) -> None:
    found = rendered(place, full)
    for number, text in enumerate([found.next_steps, *(t for p, t in found.files.items() if not p.endswith(".yaml"))]):
        file = tmp_path / f"{number}.sh"
        file.write_text(text)
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "--exclude=SC2164,SC1091", file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_the_study_survives_the_loss_of_its_cluster() -> None:
    job = dict(documents("kuberay"))["rayjob.yaml"]["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"], job["shutdownAfterJobFinishes"]) == (3, 86400, True)
    assert job["entrypoint"] == "sngd-tune run /study/study.yaml --dir /runs/sngd-tune --continue --address auto"
    cluster = job["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["lifecycle"]["preStop"]["exec"]["command"] == ["sngd-tune", "cluster", "leave", "--seconds", "25"]
    assert cluster == dict(documents("kuberay"))["raycluster.yaml"]["spec"]


@few_and_all
def test_head_and_workers_share_the_runs_or_an_object_store_has_them(full: bool) -> None:
    objects = dict(documents("kuberay", full))
    cluster = objects["raycluster.yaml"]["spec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods
        for volume in pod["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == (["data-sets"] if full else ["sngd-tune-runs", "sngd-tune-runs"])
    environment = {each["name"]: each.get("value") for each in pods[0]["template"]["spec"]["containers"][0]["env"]}
    assert environment.get("SNGD_TUNE_STORAGE") == ("s3://bucket/runs" if full else None)


def test_the_command_line_writes_the_files_and_prints_what_comes_next(tmp_path: Path) -> None:
    code, out, err = invoke("cluster", "render", "slurm", "--out", tmp_path / "a b", "--set", "runs=/shared/runs")
    assert (code, err) == (0, f"written: {tmp_path}/a b/study.sbatch\nnext:\n")
    assert f"sbatch '{tmp_path}/a b'/study.sbatch" in out
    assert (tmp_path / "a b" / "study.sbatch").read_text() == rendered("slurm").files["study.sbatch"]


def test_answers_come_from_a_file_under_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text("runs: /shared/runs\nnodes: 4\ncpus: 16\n")
    arguments = ("--answers", tmp_path / "answers.yaml", "--set", "nodes=3", "--out", tmp_path / "out")
    code, out, _ = invoke("cluster", "render", "slurm", *arguments, "--format", "json")
    assert (code, json.loads(out)["files"]) == (0, [f"{tmp_path}/out/study.sbatch"])
    script = (tmp_path / "out" / "study.sbatch").read_text()
    assert "#SBATCH --nodes=3\n" in script
    assert "#SBATCH --cpus-per-task=16\n" in script


@every_place
def test_show_prints_what_is_asked_and_writes_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = invoke("cluster", "render", place, "--show", "--format", "json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert {row["answer"] for row in rows} == set(PLACES[place].model_fields)
    assert {row["answer"] for row in rows if row["default"] == "(must be given)"} == set(FEWEST[place])
    assert all(row["meaning"] for row in rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        ("slurm", {"nodse": 3}, "--set nodse=3: nodse: unknown key; did you mean 'nodes'?"),
        ("slurm", {"hours": 0}, "hours: 0: must be greater than or equal to 1"),
        ("slurm", {"runs": "shared"}, "runs: 'shared': string should match pattern"),
        ("slurm", {"name": '"a; rm -rf b"'}, "name: 'a; rm -rf b': string should match pattern"),
        ("slurm", {"name": '"no"'}, "name: 'no': must be a word for all readers of YAML"),
        ("slurm", {"cpus": '"8"'}, "cpus: '8': must be a valid integer"),
        ("kuberay", {"image": "sngd_tune"}, "has no tag, which means latest; name a version, such as"),
        ("kuberay", {"image": "sngd_tune:latest"}, "the tag 'latest' moves with each release; name a version"),
        ("kuberay", {"postgresql_image": "postgres:17"}, "the tag '17' moves with each release"),
        ("kuberay", {"storage_cidr": "10.0.0.1/8"}, "has host bits set; write it as 10.1.0.0/16"),
        ("aws", {"storage": "s3://key:secret@bucket/x"}, "must hold no name or password; give them to the nodes"),
        ("aws", {"storage": "/runs"}, "storage: '/runs': "),
        ("aws", {"mlflow": "sqlite:///x"}, "mlflow: 'sqlite:///x': must be a URI such as https://"),
        ("gcp", {"source_image": "projects/a/global/images/family/b"}, "source_image: "),
    ],
)
def test_bad_answers_are_refused_and_nothing_is_written(
    place: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    code, out, err = invoke(
        "cluster", "render", place, "--out", tmp_path / "out", *as_settings(FEWEST[place] | changes)
    )
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_what_must_be_answered_is_named(tmp_path: Path) -> None:
    code, _, err = invoke("cluster", "render", "kuberay", "--out", tmp_path / "out")
    assert (code, err) == (2, "sngd-tune: answers:1: image: is missing; add it\n")


def test_files_that_are_there_are_replaced_only_by_force(tmp_path: Path) -> None:
    arguments = ("cluster", "render", "aws", "--out", tmp_path, *as_settings(FEWEST["aws"]))
    (tmp_path / "cluster.yaml").write_text("mine")
    code, _, err = invoke(*arguments)
    assert (code, (tmp_path / "cluster.yaml").read_text(), (tmp_path / "node").exists()) == (2, "mine", False)
    assert f"{tmp_path}/cluster.yaml: is there already; choose another --out, or replace it with --force" in err
    assert invoke(*arguments, "--force")[0] == 0
    assert yaml.safe_load((tmp_path / "cluster.yaml").read_text())["cluster_name"] == "sngd-tune"


def test_files_that_break_a_rule_are_not_written(tmp_path: Path) -> None:
    loosened = rendered("slurm").files["study.sbatch"].replace("--include-dashboard=false", "--dashboard-host=0.0.0.0")
    with pytest.raises(Exception, match=r"study\.sbatch: open-addresses: .*; start the head with"):
        write(type(rendered("slurm"))({"study.sbatch": loosened}, ""), tmp_path / "out")
    assert not (tmp_path / "out").exists()


words = st.text(max_size=40) | st.sampled_from(
    ["no", "null", "1e3", "a: b", "x #y", "s3://b/p", "-a", "a\nb", "{{ 7 }}"]
)


@settings(deadline=None, max_examples=60)
@given(place=st.sampled_from(sorted(PLACES)), data=st.data())
def test_an_answer_is_refused_or_is_read_back_as_it_was_given(place: str, data: st.DataObject) -> None:
    """Whatever a person types: no answer changes what the files mean."""
    model = PLACES[place]
    names = [name for name, field in model.model_fields.items() if field.annotation in (str, str | None)]
    name, value = data.draw(st.sampled_from(names)), data.draw(words)
    try:
        answers = model.model_validate({**FEWEST[place], name: value})
    except ValidationError:
        return
    found = render(place, answers, Path("out"))
    assert found.breaches == []
    if name == "name" and place != "slurm":
        stated = [data for path, text in found.files.items() for data in read_documents(path, text)]
        assert {str((each.data.get("metadata") or each.data).get("name", value)) for each in stated} >= {value}


def test_the_dockerfile_is_sound_and_installs_what_there_is() -> None:
    path = ROOT / "cluster" / "Dockerfile"
    done = subprocess.run(["hadolint", "--no-color", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert breaches(read_documents(str(path), path.read_text())) == []
    (extras,) = [line.partition("=")[2] for line in path.read_text().splitlines() if line.startswith("ARG EXTRAS")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_and_the_cluster_have_the_ray_that_was_tested() -> None:
    assert f"ray=={version('ray')}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert dict(documents("kuberay"))["raycluster.yaml"]["spec"]["rayVersion"] == version("ray")


@pytest.mark.parametrize(
    ("image", "pinned"),
    [
        ("a/b:1.2", True),
        ("r:5000/b:0.3.0-gpu", True),
        ("b@sha256:" + "0" * 64, True),
        ("r:5000/b", False),
        ("b:latest", False),
        ("b:latest-3.11", False),
        ("b:nightly-2.1", False),
        ("b:17", False),
        ("b", False),
        ("", False),
    ],
)
def test_an_image_is_pinned_by_version_or_digest(image: str, pinned: bool) -> None:
    assert (unpinned(image) is None) is pinned

"""Rules of closed clusters: each fails when a template is loosened, and only then."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sngd_tune.cluster.render import PLACES
from sngd_tune.cluster.rules import RULES, Document, breaches, read_documents
from sngd_tune.cluster.rules.documents import Kind
from tests.cluster.places import ROOT, documents, rendered
from tests.commands import invoke

Object = dict[str, Any]


def container(manifest: Object) -> Object:
    """The one of a workload, or of Ray's head."""
    spec = manifest["spec"]
    template = spec["template"] if "template" in spec else spec["headGroupSpec"]["template"]
    found: Object = template["spec"]["containers"][0]
    return found


def pod(manifest: Object) -> Object:
    found: Object = manifest["spec"]["headGroupSpec"]["template"]["spec"]
    return found


def worker(manifest: Object) -> Object:
    found: Object = manifest["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    return found


def node(cluster: Object) -> Object:
    found: Object = cluster["available_node_types"]["worker"]["node_config"]
    return found


def replace(data: list[Any] | Object, key: Any, old: str, new: str) -> None:
    assert old in data[key]
    data[key] = data[key].replace(old, new)


#: Rule, kind of the object (or file) that is loosened, and how.
KUBERNETES: list[tuple[str, str, Callable[[Object], Any]]] = [
    ("authentication", "RayCluster", lambda m: m["spec"].pop("authOptions")),
    ("authentication", "RayCluster", lambda m: m["spec"]["authOptions"].update(mode="disabled")),
    ("authentication", "RayJob", lambda m: m["spec"]["rayClusterSpec"].pop("authOptions")),
    (
        "authentication",
        "RayCluster",
        lambda m: container(m)["env"].append({"name": "RAY_AUTH_MODE", "value": "disabled"}),
    ),
    ("open-addresses", "Deployment", lambda m: container(m).update(command=["mlflow", "server", "--host=0.0.0.0"])),
    ("open-addresses", "Service", lambda m: m["spec"].update(type="LoadBalancer")),
    ("open-addresses", "RayCluster", lambda m: m["spec"]["headGroupSpec"].update(serviceType="NodePort")),
    ("limits", "Deployment", lambda m: container(m).pop("resources")),
    ("limits", "RayCluster", lambda m: container(m)["resources"]["limits"].pop("memory")),
    ("limits", "RayCluster", lambda m: worker(m)["containers"][0]["resources"].pop("requests")),
    ("limits", "RayJob", lambda m: m["spec"]["submitterPodTemplate"]["spec"]["containers"][0].pop("resources")),
    ("deadlines", "RayJob", lambda m: m["spec"].pop("activeDeadlineSeconds")),
    ("deadlines", "RayJob", lambda m: m["spec"].pop("ttlSecondsAfterFinished")),
    ("deadlines", "RayJob", lambda m: m["spec"].pop("backoffLimit")),
    ("deadlines", "RayJob", lambda m: m["spec"].update(shutdownAfterJobFinishes=False)),
    ("pinned-images", "StatefulSet", lambda m: container(m).update(image="postgres")),
    ("pinned-images", "RayCluster", lambda m: worker(m)["containers"][0].update(image="r.example/sngd_tune:latest")),
    ("non-root", "RayCluster", lambda m: pod(m).pop("securityContext")),
    ("non-root", "RayCluster", lambda m: container(m)["securityContext"].update(runAsUser=0)),
    ("non-root", "RayJob", lambda m: m["spec"]["submitterPodTemplate"]["spec"].pop("securityContext")),
    ("privileges", "RayCluster", lambda m: container(m)["securityContext"].update(privileged=True)),
    ("privileges", "RayCluster", lambda m: container(m)["securityContext"].pop("allowPrivilegeEscalation")),
    ("privileges", "RayCluster", lambda m: container(m)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"])),
    ("privileges", "RayCluster", lambda m: worker(m).update(hostNetwork=True)),
    ("privileges", "RayCluster", lambda m: worker(m)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("service-accounts", "Deployment", lambda m: m["spec"]["template"]["spec"].pop("automountServiceAccountToken")),
    ("secrets", "Deployment", lambda m: container(m)["env"].append({"name": "DB_PASSWORD", "value": "x"})),
    ("secrets", "RayCluster", lambda m: container(m)["env"].append({"name": "DB", "value": "postgresql://a:b@c/d"})),
    ("secrets", "ConfigMap", lambda m: m.update(kind="Secret")),
    ("isolation", "NetworkPolicy", lambda m: m["spec"].update(podSelector={"matchLabels": {"a": "b"}})),
    ("isolation", "NetworkPolicy", lambda m: m["spec"].update(policyTypes=["Ingress"])),
    ("isolation", "NetworkPolicy", lambda m: m["spec"].update(ingress=[{}])),
]
RAY_UP: list[tuple[str, str, Callable[[Object], Any]]] = [
    ("authentication", "aws", lambda c: replace(c["docker"]["run_options"], 3, "token", "disabled")),
    ("authentication", "gcp", lambda c: c["docker"].pop("run_options")),
    ("open-addresses", "aws", lambda c: replace(c["head_start_ray_commands"], 1, "127.0.0.1", "0.0.0.0")),
    ("open-addresses", "gcp", lambda c: c.pop("head_start_ray_commands")),
    ("private-addresses", "aws", lambda c: c["provider"].update(use_internal_ips=False)),
    ("private-addresses", "gcp", lambda c: node(c)["networkInterfaces"][0].update(accessConfigs=[{"name": "NAT"}])),
    ("private-addresses", "gcp", lambda c: node(c).pop("networkInterfaces")),
    ("ssh", "aws", lambda c: node(c).pop("SecurityGroupIds")),
    ("ssh", "aws", lambda c: c["provider"].update(security_group={"IpPermissions": [{"CidrIp": "0.0.0.0/0"}]})),
    ("metadata", "aws", lambda c: node(c).pop("MetadataOptions")),
    ("pinned-images", "aws", lambda c: c["docker"].update(image="rayproject/ray:latest")),
    ("pinned-images", "aws", lambda c: node(c).pop("ImageId")),
    (
        "pinned-images",
        "gcp",
        lambda c: node(c)["disks"][0].update(initializeParams={"sourceImage": "projects/a/global/images/family/b"}),
    ),
    ("limits", "aws", lambda c: c.pop("max_workers")),
    ("limits", "gcp", lambda c: c.update(idle_timeout_minutes=0)),
    ("privileges", "aws", lambda c: c["docker"]["run_options"].append("--privileged")),
    ("privileges", "gcp", lambda c: c["docker"]["run_options"].remove("--cap-drop=ALL")),
]
#: Rule, file, and what is replaced in its text.
TEXTS = [
    ("authentication", "study.sbatch", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    ("authentication", "study.sbatch", "umask 077", "umask 022"),
    ("authentication", "study.sbatch", "RAY_AUTH_TOKEN_PATH=$secret/token", "RAY_AUTH_TOKEN=abc"),
    ("open-addresses", "study.sbatch", "--include-dashboard=false", ""),
    ("open-addresses", "study.sbatch", '"${address%:*}"', "0.0.0.0"),
    ("limits", "study.sbatch", "#SBATCH --time", "# --time"),
    ("limits", "study.sbatch", "#SBATCH --mem=", "# --mem="),
    ("deadline-signal", "study.sbatch", "#SBATCH --signal=B:USR1@120", ""),
    ("deadline-signal", "study.sbatch", "@120", "@5"),
    ("deadline-signal", "study.sbatch", '"$job"; exit 0\' USR1', "'"),
    ("ports", "study.sbatch", '--port="$first"', "--port=6379"),
    ("ports", "study.sbatch", "--node-manager-port=$((first + 1))", ""),
    ("authentication", "Dockerfile", "RAY_AUTH_MODE=token", "X=y"),
    ("pinned-images", "Dockerfile", "python:3.11.14-slim-bookworm", "python:latest"),
    ("pinned-images", "Dockerfile", "ARG BASE=python:3.11.14-slim-bookworm", "ARG BASE"),
    ("non-root", "Dockerfile", "USER 1000:1000", "USER root"),
    ("non-root", "Dockerfile", "USER 1000:1000\n", ""),
    ("secrets", "Dockerfile", "ARG EXTRAS", "ARG PYPI_TOKEN=abc\nARG EXTRAS"),
    ("exec-form", "Dockerfile", 'CMD ["sngd-tune", "--help"]', "CMD sngd-tune --help"),
]


def broken(documents: list[Document]) -> set[str]:
    return {breach.rule for breach in breaches(documents)}


def as_documents(objects: list[tuple[str, Object]]) -> list[Document]:
    return [Document(path, Kind.KUBERNETES if "kind" in data else Kind.RAY_UP, data) for path, data in objects]


@pytest.mark.parametrize(("rule", "kind", "loosen"), KUBERNETES)
def test_a_loosened_kubernetes_object_fails(rule: str, kind: str, loosen: Callable[[Object], Any]) -> None:
    objects = copy.deepcopy(documents("kuberay"))
    loosen(next(data for _, data in objects if data["kind"] == kind))
    assert broken(as_documents(objects)) == {rule}


@pytest.mark.parametrize(("rule", "place", "loosen"), RAY_UP)
def test_a_loosened_ray_up_file_fails(rule: str, place: str, loosen: Callable[[Object], Any]) -> None:
    objects = copy.deepcopy(documents(place))
    loosen(objects[0][1])
    assert rule in broken(as_documents(objects))


@pytest.mark.parametrize(("rule", "file", "old", "new"), TEXTS)
def test_a_loosened_script_or_dockerfile_fails(rule: str, file: str, old: str, new: str) -> None:
    text = rendered("slurm").files[file] if file != "Dockerfile" else (ROOT / "cluster" / file).read_text()
    assert old in text
    assert broken(read_documents(file, text)) == set()
    assert broken(read_documents(file, text.replace(old, new))) == {rule}


def test_each_rule_is_shown_to_fail() -> None:
    shown = {rule for cases in (KUBERNETES, RAY_UP, TEXTS) for rule, *_ in cases}
    assert shown == {rule.name for rule in RULES}
    assert len({(rule.kind, rule.name) for rule in RULES}) == len(RULES)


def test_the_items_of_a_list_are_looked_at() -> None:
    objects = [copy.deepcopy(data) for _, data in documents("kuberay")]
    together = {"apiVersion": "v1", "kind": "List", "items": objects}
    assert broken(read_documents("list.yaml", json.dumps(together))) == set()
    next(data for data in objects if data["kind"] == "RayCluster")["spec"].pop("authOptions")
    assert broken(read_documents("list.yaml", json.dumps(together))) == {"authentication"}


def test_a_variable_in_a_uri_is_no_secret() -> None:
    objects = copy.deepcopy(documents("kuberay"))
    (mlflow,) = (data for _, data in objects if data["kind"] == "Deployment")
    container(mlflow)["env"].append({"name": "DB", "value": "postgresql://a:$(DATABASE_PASSWORD)@c/d"})
    assert broken(as_documents(objects)) == set()


def paths(data: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path for key, value in items for path in [(*above, key), *paths(value, (*above, key))]]


@settings(deadline=None, max_examples=50)
@given(data=st.data(), place=st.sampled_from(["kuberay", "aws", "gcp"]))
def test_a_file_that_is_built_wrongly_is_judged_and_never_an_error(data: st.DataObject, place: str) -> None:
    """People check what they edited: any part may be missing or of another type."""
    _, edited = copy.deepcopy(data.draw(st.sampled_from(documents(place))))
    *above, last = data.draw(st.sampled_from(paths(edited)))
    part: Any = edited
    for key in above:
        part = part[key]
    part[last] = data.draw(st.sampled_from([None, 0, "", "x", [], {}, [None], ["x"], {"x": None}]))
    kind = Kind.KUBERNETES if place == "kuberay" else Kind.RAY_UP
    for breach in breaches([Document("edited.yaml", kind, edited)]):
        assert breach.remedy
        assert str(breach).startswith("edited.yaml: ")


def test_check_names_file_rule_and_remedy(tmp_path: Path) -> None:
    for path, text in rendered("kuberay").files.items():
        (tmp_path / path).write_text(text)
    assert invoke("cluster", "check", tmp_path)[0] == 0
    file = tmp_path / "raycluster.yaml"
    file.write_text(file.read_text().replace("mode: token", "mode: disabled"))
    code, out, _ = invoke("cluster", "check", tmp_path, "--format", "json")
    assert code == 1
    assert json.loads(out)["rows"] == [
        {
            "file": str(file),
            "rule": "authentication",
            "detail": "RayCluster sngd-tune: authOptions.mode is not token",
            "remedy": "set authOptions: {mode: token, secretName: …}",
        }
    ]


@pytest.mark.parametrize("text", ["", "a: b", "- 1", "echo hello"])
def test_check_refuses_files_that_have_no_rules(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(text)
    code, _, err = invoke("cluster", "check", tmp_path / "file.yaml")
    assert (code, "file.yaml: nothing that has rules; give Kubernetes objects" in err) == (2, True)


def test_check_refuses_what_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("a: [")
    code, _, err = invoke("cluster", "check", tmp_path / "file.yaml")
    assert (code, "file.yaml: not readable as YAML" in err) == (2, True)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_written_for_a_place_has_rules(place: str) -> None:
    found = [each for path, text in rendered(place).files.items() for each in read_documents(path, text)]
    assert found

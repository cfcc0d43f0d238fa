"""The local cluster itself, in the form that needs no root; the rest of the suite runs on the other one."""

import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.nodes import Nodes, lives

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

JOIN = """
import os, sys, ray
if sys.argv[1:]:
    os.environ.update(RAY_AUTH_TOKEN_PATH=sys.argv[1])
ray.init("auto", log_to_driver=False, logging_level="ERROR")
sys.exit(7)
"""


def test_it_lets_in_who_has_its_token_and_leaves_nothing(tmp_path: Path) -> None:
    cluster = Nodes(tmp_path / "cluster", count=1)
    cluster.up("--loopback")
    try:
        assert (tmp_path / "cluster" / "token").stat().st_mode & 0o777 == 0o600
        first = {name: psutil.Process(node["pid"]) for name, node in cluster.nodes.items()}
        processes = [each for process in first.values() for each in [process, *process.children(recursive=True)]]
        folder = next(word for word in first["head"].cmdline() if word.startswith("--temp-dir=")).partition("=")[2]

        (tmp_path / "other").write_text("0" * 64)
        cluster.script("run", "--", sys.executable, "-c", JOIN, code=7)
        assert "AuthenticationError" in cluster.script(
            "run", "--", sys.executable, "-c", JOIN, str(tmp_path / "other"), code=1
        )
        assert "a partition needs nodes in network namespaces" in cluster.script("cut", "node1", code=1)
        assert "no node 'node9'; the nodes are head, node1" in cluster.script("kill", "node9", code=1)
        assert "a cluster is there already" in cluster.script("up", code=1)

        cluster.script("kill", "node1")
        assert not lives(first["node1"])
        assert lives(first["head"])
    finally:
        cluster.down()
    assert not any(map(lives, processes))
    assert not Path(folder).parent.exists()
    assert not (tmp_path / "cluster").exists()

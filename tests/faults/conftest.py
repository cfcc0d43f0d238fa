"""One cluster for the whole suite: starting one takes longer than most faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sngd_tune.tracking.ledger import Ledger
from tests.faults.disturbed import Disturbed, finish
from tests.faults.nodes import Nodes


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path_factory.mktemp("cluster"), count=2)
    nodes.up()
    yield nodes
    nodes.down()


@pytest.fixture(scope="session")
def calm(cluster: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """The ledger of the study where nothing happens to it."""
    study = Disturbed(cluster, tmp_path_factory.mktemp("calm"))
    with study.run() as driver:
        finish(driver)
    return study.ledger


@pytest.fixture
def disturbed(calm: Ledger, cluster: Nodes, tmp_path: Path) -> Disturbed:
    """The study on the cluster, in which what an earlier test broke has been replaced."""
    cluster.heal()
    return Disturbed(cluster, tmp_path)

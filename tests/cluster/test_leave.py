"""What `leave` refuses; a node that leaves a cluster is in `tests/faults`."""

import pytest

from sngd_tune.cluster.leave import leave
from sngd_tune.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_head_stays() -> None:
    with pytest.raises(ConfigurationError, match="is the head: the cluster ends with its head; `sngd-tune resume`"):
        leave(5)


def test_a_node_that_is_not_there_is_refused_and_those_that_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"node='10\.9\.9\.9': belongs to 0 nodes .* name one with --node: \d"):
        leave(5, "10.9.9.9")

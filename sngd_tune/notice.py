"""Notice that a node will be taken away soon: a spot instance, a pod that is evicted, a job whose time is over.

A file named after Ray's id of the node: whoever learns of the end (a hook, a watcher of the cloud's metadata) writes
it, and the trials on the node look for it between epochs. Ray itself tells actors nothing.
"""

import os
import tempfile
from pathlib import Path

__all__ = ["give_notice", "notice_given"]


def give_notice(node_id: str) -> Path:
    """Tell the trials on a node to write a checkpoint and leave.

    Args:
        node_id: Ray's, in hexadecimal. It is new for each start of a node, so that a notice never meets a later one.
    """
    path = _path(node_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch()
    return path


def notice_given(node_id: str) -> bool:
    """Whether a node will be taken away."""
    return _path(node_id).exists()


def _path(node_id: str) -> Path:
    folder = os.environ.get("SNGD_TUNE_NOTICES") or Path(tempfile.gettempdir()) / f"sngd_tune-{os.getuid()}"
    return Path(folder) / f"notice-{node_id}"

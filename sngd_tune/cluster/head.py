"""Watching the head of a cluster: Ray ends a driver that has lost it, after a minute and without a word of advice."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["head_watched"]

_log = logging.getLogger(__name__)

#: Seconds between two looks at the head, and looks in vain after which it is called lost.
_PERIOD, _LOOKS = 2.0, 2


@contextmanager
def head_watched(address: str | None, directory: Path) -> Iterator[None]:
    """Say how the study goes on while there is time, where the head does not answer any more. Ray is connected.

    Args:
        address: of the cluster, as it was given; None for a local Ray, whose head ends with its driver.
        directory: the run directory.
    """
    if address is None:
        yield
        return
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    ended = threading.Event()
    advice = f"`sngd-tune resume {directory} --address …` goes on, on this cluster or another"
    thread = threading.Thread(
        target=_watch, args=((host.strip("[]"), int(port)), advice, ended), name="sngd-tune-head", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _watch(head: tuple[str, int], advice: str, ended: threading.Event) -> None:
    vain = 0
    while not ended.wait(_PERIOD):
        if _answers(head):
            if vain >= _LOOKS:
                _log.warning("the head of the cluster answers again; the study goes on")
            vain = 0
            continue
        vain += 1
        if vain == _LOOKS:
            _log.warning(
                "the head of the cluster (%s:%d) does not answer, and Ray will end this process if that lasts; the "
                "ledger has every finished trial, and %s",
                *head,
                advice,
            )


def _answers(head: tuple[str, int]) -> bool:
    try:
        socket.create_connection(head, timeout=_PERIOD).close()
    except OSError:
        return False
    return True

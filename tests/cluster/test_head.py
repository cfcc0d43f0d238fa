"""A driver says how its study goes on before Ray ends it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sngd_tune.cluster import head
from sngd_tune.cluster.head import head_watched


@contextmanager
def _listening(port: int = 0) -> Iterator[tuple[str, int]]:
    with closing(socket.create_server(("127.0.0.1", port), reuse_port=True)) as server:
        yield server.getsockname()


def test_a_head_that_is_lost_and_found_is_told_of_once_each(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    monkeypatch.setattr(head, "_PERIOD", 0.05)
    ended = threading.Event()
    with _listening() as address:
        thread = threading.Thread(target=head._watch, args=(address, "`sngd-tune resume mine`", ended))
        thread.start()
    eventually(lambda: "does not answer" in caplog.text)
    with _listening(address[1]):
        eventually(lambda: "answers again" in caplog.text)
    ended.set()
    thread.join()
    first, second = caplog.messages
    assert f"({address[0]}:{address[1]}) does not answer" in first
    assert "every finished trial, and `sngd-tune resume mine`" in first
    assert "the study goes on" in second


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("address", [None, "auto"])
def test_a_head_that_is_well_is_not_spoken_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, address: str | None
) -> None:
    monkeypatch.setattr(head, "_PERIOD", 0.05)
    with head_watched(address, tmp_path):
        threading.Event().wait(0.5)
        assert any(thread.name == "sngd-tune-head" for thread in threading.enumerate()) is (address is not None)
    assert caplog.text == ""

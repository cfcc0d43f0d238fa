"""The scripts that watch for the end of a spot machine, against a metadata server like the cloud's."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.places import rendered


class Metadata(BaseHTTPRequestHandler):
    """Says nothing at first, as the clouds do; then, on the third question, that the machine goes."""

    questions = 0

    def do_PUT(self) -> None:
        """AWS gives a token for the questions that follow, and answers none without (IMDSv2)."""
        self._answer("secret" if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else None)

    def do_GET(self) -> None:
        type(self).questions += 1
        goes = self.questions >= 3
        if self.path == "/meta-data/spot/instance-action" and self.headers["X-aws-ec2-metadata-token"] == "secret":
            self._answer('{"action": "terminate", "time": "2026-11-26T08:22:00Z"}' if goes else None)
        elif self.path.startswith("/instance/preempted?") and self.headers["Metadata-Flavor"] == "Google":
            self._answer("TRUE" if goes else "FALSE")
        else:
            self._answer(None)

    def _answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *arguments: Any) -> None:
        """Silent."""


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.questions = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("place", "seconds"), [("aws", 100), ("gcp", 20)])
def test_the_node_leaves_when_the_cloud_says_that_it_goes(
    place: str, seconds: int, metadata: str, tmp_path: Path
) -> None:
    (tmp_path / "sngd-tune").write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/said\n')
    (tmp_path / "sngd-tune").chmod(0o755)
    (tmp_path / "watch.sh").write_text(rendered(place).files["node/watch-preemption.sh"])
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "METADATA": metadata, "INTERVAL": "0.05"}
    subprocess.run(["bash", tmp_path / "watch.sh"], env=environment, check=True, timeout=60)
    assert (tmp_path / "said").read_text() == f"cluster leave --seconds {seconds}\n"
    assert Metadata.questions == 3

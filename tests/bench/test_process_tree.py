"""The CPU of a worker is that of all its processes, also of those that have ended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.process_tree import cpu_of, memory_of, pids_of
from bench.tracked_process import REAPER, run_tracked
from dev.process import ServiceError

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
#: A grandchild whose parent ends at once, so that it is an orphan while it burns; then it waits for a line.
ORPHAN = """
import os, sys, time
reads, writes = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while time.process_time() < 0.3: pass
        os.write(writes, b"x")
    os._exit(0)
os.wait()
os.read(reads, 1)
print("burnt", flush=True)
sys.stdin.readline()
"""


def test_an_orphan_that_has_ended_still_counts() -> None:
    command = [sys.executable, str(REAPER), "/dev/null", sys.executable, "-c", ORPHAN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        assert len(pids_of(process.pid)) >= 2
        assert cpu_of(process.pid) >= 0.3
        assert memory_of(process.pid) > 1024 * 1024
        process.communicate("\n")


def test_a_command_is_charged_for_its_children(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN.format(seconds=0.3)!r}])"
    used = run_tracked("burn", [sys.executable, "-c", code], directory=tmp_path, environment={})
    assert used.cpu >= 0.3
    assert used.memory > 1024 * 1024
    assert json.loads((tmp_path / "burn.json").read_text())["status"] == 0


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="status 3\nno such thing"):
        run_tracked(
            "fails", [sys.executable, "-c", "print('no such thing'); exit(3)"], directory=tmp_path, environment={}
        )

"""A drain ends in time, whatever its process hangs in."""

import os
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

WAYS_TO_HANG = {
    "a lock": "import threading; held = threading.Lock(); held.acquire(); held.acquire()",
    "a call that is begun again after each signal": "import socket; pair = socket.socketpair(); pair[0].recv(1)",
    "its log": "import os; reader, writer = os.pipe(); os.dup2(writer, 2)\nwhile True: os.write(2, bytes(65536))",
}


@pytest.mark.parametrize("how", WAYS_TO_HANG)
def test_a_process_that_hangs_is_ended_with_its_children(how: str) -> None:
    script = f"""
import subprocess
from worker.celery.drain_bound import bound_drain
print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)
bound_drain(0.1)
{WAYS_TO_HANG[how]}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=os.environ, timeout=60)
    assert done.returncode == 0, done.stderr
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=10)

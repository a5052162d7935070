"""A drain ends in time, whatever its process hangs in."""

import os
import signal
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


HANGS_IN_C = """
import ctypes, os, signal, subprocess, sys
from worker.celery.drain_bound import tell_of_signals
signal.signal(signal.SIGTERM, lambda *_: None)
signals = tell_of_signals()
watches = "import os; from worker.celery.drain_bound import bound_drain_of"
watches += f"; bound_drain_of(os.getppid(), {signals}, 0.1)"
subprocess.Popen([sys.executable, "-c", watches], pass_fds=[signals])
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex), libc.pthread_mutex_lock(mutex)
"""


def test_the_time_counts_from_the_signal_even_while_no_handler_can_run() -> None:
    """The look-up of a name whose servers are silent hangs in C as this mutex does, for up to a minute."""
    command = [sys.executable, "-c", HANGS_IN_C]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL, log
    assert "drain took too long" in log
    with suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(timeout=10)


def test_a_signal_to_a_child_is_not_told_as_one_of_its_parent() -> None:
    script = """
import os, signal
from worker.celery.drain_bound import tell_of_signals
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
signals = tell_of_signals()
os.set_blocking(signals, False)
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.read(signals, 64)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=os.environ, timeout=60, text=True)
    assert done.stdout.split() == ["7"], done.stderr
    assert "BlockingIOError" in done.stderr, "nothing was told"

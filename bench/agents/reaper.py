"""Runs a command and waits until it and everything it has started is gone: ``reaper.py REPORT COMMAND …``.

As the subreaper of all of them it inherits orphans too, so their CPU time ends in its own account, from which the bench
reads it while they run. In the end REPORT holds, as JSON: the exit status, and what all of them took. SIGTERM goes on
to the command. The standard library alone, since it must start quickly and weigh little.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_CHILD_SUBREAPER = 36  # Source: linux/prctl.h


def main() -> None:
    """Run the command and report."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    child = subprocess.Popen(sys.argv[2:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: child.send_signal(signum))
    status = child.wait()
    wall = time.monotonic() - started
    with suppress(ChildProcessError):
        while True:  # orphans of the command, if any
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {
        "status": status,
        "wall": wall,
        "user": used.ru_utime,
        "system": used.ru_stime,
        "largest_kib": used.ru_maxrss,
    }
    with open(sys.argv[1], "w") as file:
        json.dump(report, file)
    sys.exit(min(abs(status), 255))


if __name__ == "__main__":
    main()

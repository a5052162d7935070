"""Which of some processes live at this moment: any of them may end between two looks at it."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import psutil


def living(processes: Iterable[psutil.Process]) -> list[tuple[psutil.Process, Sequence[str]]]:
    """Those that have not ended, each with its command line. Only their end is suppressed, and no other error."""
    found: list[tuple[psutil.Process, Sequence[str]]] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if command := process.cmdline():  # which raises NoSuchProcess for a zombie as well
                found.append((process, command))
    return found

"""Removes what killed probes have left in the storages, in a thread: a store that does not answer delays no job."""

import logging
from collections.abc import Callable
from typing import Final

from worker.errors import BlobferryError
from worker.runtime import Runtime
from worker.transfer.left_probes import remove_left_probes

logger = logging.getLogger(__name__)

FIRST: Final = 60.0  #: seconds from the start, so that the worker's first jobs need not share the machine with it
PAUSE: Final = 3600.0  #: seconds between two rounds, each of which costs a storage two listings


class ProbeSweep:
    """The rounds of one caretaker through all its storages. Any number of caretakers may do the same at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._failed: set[str] = set()

    def loop(self, ended: Callable[[float], bool]) -> None:
        """Go round until ``ended``, which waits for so many seconds at most, returns True."""
        pause = FIRST
        while not ended(pause):
            self.go_round()
            pause = PAUSE

    def go_round(self) -> int:
        """Sweep each storage once; return how many blobs and uploads were removed. One that fails is logged once."""
        removed = 0
        for name, driver in self._runtime.drivers.items():
            try:
                removed += remove_left_probes(driver.store)
                self._failed.discard(name)
            except Exception as error:  # the other storages may work, and the next round comes here again
                if name not in self._failed:
                    known = isinstance(error, BlobferryError)
                    extra = {"storage": name, "reason": str(error)}
                    logger.warning("what probes may have left is not removed", exc_info=not known, extra=extra)
                self._failed.add(name)
        if removed:
            logger.info("what probes had left was removed", extra={"removed": removed})
        return removed

"""Removes spooled uploads that no job needs, and sources whose worker was killed right after their job had succeeded.

In a thread of the caretaker, as a mount that does not answer delays no job. Any number of caretakers may do the same at
once. A worker that does not have the directory finds nothing to do.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from blobferry.spooling.spooled import SpooledName, is_part_name, new_part_name
from models import queries
from worker.errors import BlobferryError
from worker.maintenance.remove_sources import remove_found
from worker.maintenance.spool_marker import MARKER, is_ours
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

PAUSE: Final = 60.0  #: seconds between two rounds
ORPHANS_PAUSE: Final = 3600.0  #: seconds between two listings of the directory, or less if uploads are kept for less
AT_ONCE: Final = 100  #: sources of jobs that have succeeded, in one step
#: Seconds for which open transactions are waited for. One that lasts longer puts the removal off to the next round.
TRANSACTIONS: Final = 30.0

Ended = Callable[[float], bool]
"""Waits for so many seconds at most; True once the process is to end."""


class SpoolSweep:
    """The rounds of one caretaker."""

    def __init__(
        self, runtime: Runtime, *, at_once: int = queries.NAMES_AT_ONCE, patience: float = TRANSACTIONS
    ) -> None:
        """``at_once``: uploads in one step; ``patience``: seconds for which open transactions are waited for."""
        self._runtime = runtime
        self._at_once = at_once
        self._patience = patience
        self._spool = runtime.settings.spool_dir
        self._grace = runtime.settings.retention.spooled_seconds
        self._complaint = ""

    def loop(self, ended: Ended) -> None:
        """Go round until ``ended``."""
        every = max(1, int(min(ORPHANS_PAUSE, self._grace) / PAUSE))
        turn = 0
        while not ended(PAUSE):
            turn += 1
            self.go_round(ended, lists=turn % every == 0)

    def go_round(self, ended: Ended = lambda seconds: False, *, lists: bool = True) -> int:
        """Remove what is due; with ``lists`` also uploads without a job. Returns how many. Never raises."""
        try:
            removed = self._remove_sent(ended) + (self._remove_orphans(ended) if lists else 0)
            self._complaint = ""
        except (BlobferryError, OSError) as error:
            if str(error) != self._complaint:  # the same one each minute says nothing new
                logger.warning("spooled uploads not swept: %s", error, extra={"directory": str(self._spool)})
            self._complaint = str(error)
            return 0
        if removed:
            logger.info("spooled uploads removed", extra={"removed": removed})
        return removed

    # --- of jobs that have succeeded ---------------------------------------------------------------------------------

    def _remove_sent(self, ended: Ended) -> int:
        """Those whose worker was killed, or had no time, after the job's end. What another worker must do is passed."""
        after = removed = 0
        while not ended(0):
            with self._runtime.database.read() as session:
                found = queries.sources_to_remove(session, after=after, limit=AT_ONCE)
            if not found:
                break
            removed += remove_found(self._runtime, found)
            after = found[-1].seq
        return removed

    # --- without a job -----------------------------------------------------------------------------------------------

    def _remove_orphans(self, ended: Ended) -> int:
        """Those of no job: of a transaction that was rolled back, of a killed app, of a job that came to nothing."""
        spool = self._spool
        if spool is None or not spool.is_dir() or not _has_entries(spool):
            return 0
        if not is_ours(self._runtime.database, spool):
            problem = f"its {MARKER} is another database's; if that one no longer uses it, remove the marker"
            logger.warning("spool_dir %s is not swept: %s", spool, problem)
            return 0
        removed, oldest = 0, _now(spool) - self._grace
        names = (entry.name for entry in _ours(spool) if _changed_at(entry) < oldest)
        while (some := list(islice(names, self._at_once))) and not ended(0):
            removed += self._remove_unneeded(spool, some, ended)
        return removed

    def _remove_unneeded(self, spool: Path, names: list[str], ended: Ended) -> int:
        """Remove those that no row needs once each transaction has ended that may have inserted one until now.

        So a transaction may last longer than the grace: what counts is that its INSERT came within it.
        """
        with self._runtime.database.begin() as session:
            newest = queries.newest_transaction(session)
        for _ in range(int(self._patience)):
            with self._runtime.database.begin() as session:
                if queries.have_ended(session, newest):
                    break
            if ended(1.0):
                return 0
        else:
            return 0
        with self._runtime.database.begin() as session:  # on SQLite after all who write
            needed = queries.needed_spools(session, [name for name in names if not is_part_name(name)])
        removed = 0
        for name in names:
            if name not in needed:
                with suppress(FileNotFoundError):  # another caretaker was first
                    os.unlink(spool / name)
                    removed += 1
        return removed


def _ours(spool: Path) -> Iterator[os.DirEntry[str]]:
    """Uploads, and what is being written; nothing else in the directory is ever touched."""
    with os.scandir(spool) as entries:
        for entry in entries:
            is_ours = SpooledName.parse(entry.name) is not None or is_part_name(entry.name)
            if is_ours and entry.is_file(follow_symlinks=False):
                yield entry


def _has_entries(spool: Path) -> bool:
    """False for a mount point with nothing mounted, which is not to be marked."""
    return next(_ours(spool), None) is not None


def _changed_at(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return float("inf")


def _now(spool: Path) -> float:
    """The time by the clock that dates the files, whatever the clocks of hosts and database say."""
    probe = spool / new_part_name()
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)

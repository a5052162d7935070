"""Removes the spooled files of transactions that were rolled back.

Django tells when a transaction commits, and not when it rolls back. So a file whose commit was not told of by the end
of the request, or by the next save in this thread, is looked up: it goes if its job does not exist. A process that
ends before leaves the file to the workers' sweep.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.core.signals import request_finished
from django.db import DatabaseError, connections, transaction
from django.dispatch import receiver

from blobferry.django.joined_engine import joined_engine
from blobferry.errors import BlobferryError
from blobferry.jobs.job_reader import JobReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """A file whose job is part of a transaction that was open when it was last looked at."""

    alias: str
    job_id: str
    path: Path


class _OfThread(threading.local):
    """A transaction belongs to a thread, and so do its files."""

    def __init__(self) -> None:
        self.files = list[_Unsettled]()


_mine = _OfThread()


def remove_unless_committed(alias: str, job_id: str, path: Path) -> None:
    """Remove the file soon after the transaction that is open on ``alias`` has ended, unless it commits the job."""
    unsettled = _Unsettled(alias, job_id, path)
    _mine.files.append(unsettled)
    transaction.on_commit(partial(_settle, unsettled), using=alias, robust=True)


def _settle(unsettled: _Unsettled) -> None:
    if unsettled in _mine.files:  # not so if a test runs its callbacks twice
        _mine.files.remove(unsettled)


def remove_rolled_back() -> None:
    """Remove the files of this thread whose jobs were rolled back. Never raises: a sweep does what is left."""
    _remove(_mine.files)


@receiver(request_finished)
def _request_has_ended(**sent: Any) -> None:
    """In a test's transaction nothing has ended, and no statement is to be counted that the view did not make."""
    _remove([each for each in _mine.files if not connections[each.alias].in_atomic_block])


def _remove(unsettled: Iterable[_Unsettled]) -> None:
    by_alias = defaultdict[str, list[_Unsettled]](list)
    for each in unsettled:
        by_alias[each.alias].append(each)
    for alias, files in by_alias.items():
        try:
            # In the transaction that was open then, or behind it: a job that is not seen here was rolled back.
            kept = JobReader(joined_engine(alias)).get_many([each.job_id for each in files])
            for each in files:
                if each.job_id not in kept:
                    each.path.unlink(missing_ok=True)
                    _settle(each)
        except (BlobferryError, DatabaseError, OSError) as error:
            logger.info("files of a rollback not removed yet, a sweep will", extra={"reason": str(error)})

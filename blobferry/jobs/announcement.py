"""Announcement: the messages of jobs that have been committed, and what SQL says of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import Engine, update

from blobferry.contract import JobState
from blobferry.errors import UnreachableError
from blobferry.redaction import redacted_arguments
from blobferry.sql.database import reachable
from blobferry.sql.tables import jobs

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
BATCH: Final = 500  #: rows that one UPDATE corrects


class Announcer(Protocol):
    """Publishes rows that have been committed."""

    @property
    def is_ready(self) -> bool:
        """Whether a message would be sent now, as far as is known."""

    def publish_rows(self, rows: Sequence[Row]) -> int:
        """Send a message for each row; return for how many of them, from the first on. Never raises."""


def awaits_message(row: Row) -> bool:
    """Whether an existing job is due, and no message of it has been sent."""
    is_new = row["publish_seq"] == 0 and row["published_at"] is None and row["state"] == JobState.QUEUED
    return is_new and row["run_at"] is None


def message_row(row: Row, *, is_published: bool) -> Row:
    """What a message needs of a row, without secrets and contents, to be kept until the commit.

    ``is_published``: whether the row says that the message was sent.
    """
    names = ("id", "operation", "queue", "storage", "source", "publish_seq", "message_options", "parent_id", "root_id")
    shown = redacted_arguments(row["request"] or {})
    return {**{name: row[name] for name in names}, "request": shown, "is_published": is_published}


@dataclass(frozen=True, slots=True)
class Announcement:
    """How the jobs of one client are announced. Equal for all submissions of one client."""

    engine: Engine
    announcer: Announcer
    alone: Engine = field(init=False, compare=False)  #: the same connections; on PostgreSQL it commits each statement

    def __post_init__(self) -> None:
        # On SQLite a transaction costs no round trip, and only BEGIN waits its turn among the writers.
        is_sqlite = self.engine.dialect.name == "sqlite"
        alone = self.engine if is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        object.__setattr__(self, "alone", alone)

    @property
    def is_ready(self) -> bool:
        """Whether a job that commits now would be published at once, so that its row may say so."""
        return self.announcer.is_ready

    def announce(self, rows: Sequence[Row]) -> None:
        """Publish jobs that have been committed, from their :func:`message_row`. Never raises.

        A row that wrongly says that the message was sent is corrected, so that the caretaker need not take 30 seconds
        to find out. If this process dies before that, it does.
        """
        unsent = [row["id"] for row in rows[self.announcer.publish_rows(rows) :] if row["is_published"]]
        try:
            if unsent:
                self._correct(unsent)
        except UnreachableError as error:
            shown = {"job_id": unsent[0], "jobs": len(unsent), "reason": str(error)}
            logger.warning("not published for 30 s: job %(job_id)s, %(jobs)d in all: %(reason)s", shown, extra=shown)

    def _correct(self, unsent: Sequence[str]) -> None:
        for ids in (unsent[start : start + BATCH] for start in range(0, len(unsent), BATCH)):
            # A row that has been claimed meanwhile has a higher number.
            are_unsent = (jobs.c.id.in_(ids), jobs.c.publish_seq == 0)
            with reachable(), self.engine.begin() as connection:
                connection.execute(update(jobs).where(*are_unsent).values(published_at=None))

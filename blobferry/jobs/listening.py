"""Listening: the feed of ended jobs, read for ever, with its cursor kept in SQL under a name."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine, select, update
from sqlalchemy.dialects import postgresql, sqlite

from blobferry.checks.arguments import check_text
from blobferry.errors import UnreachableError
from blobferry.jobs.end_feed import NOW, read_ends
from blobferry.jobs.job_options import Labels
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import listeners
from blobferry.values import Job

if TYPE_CHECKING:
    from blobferry.client import Client

AT_ONCE: Final = 100  #: jobs of a page; so many at most are handed on again after a crash
INTERVAL: Final = 1.0  #: seconds
PATIENCE: Final = 600.0  #: seconds that the database may be away


def listen(client: "Client", name: str, labels: Labels | None = None, interval: float = INTERVAL) -> Iterator[Job]:
    """Each job that ends, for ever. A page counts as read once the job after its last one is asked for.

    So whoever dies before that gets the page again: at least once. The first call under a name begins with what ends
    from then on. Two that listen under one name at a time both get all.

    Args:
        client: of the primary, not of a standby.
        name: 1 to 128 printable characters.
        labels: the job has these labels.
        interval: seconds between two looks while nothing ends.

    Raises InvalidRequestError, and UnreachableError if the database is away at the call or for ten minutes later.
    """
    place = ListenersPlace(client._engine, name, labels, interval)
    place.begin()
    return _ends(place)


def _ends(place: "ListenersPlace") -> Iterator[Job]:
    while True:
        yield from place.read()
        place.keep()
        time.sleep(place.pause)


class ListenersPlace:
    """How far a listener has come. Neither waits nor loops, so threads and event loops use the same."""

    def __init__(self, engine: Engine, name: str, labels: Labels | None, interval: float) -> None:
        """Raises InvalidRequestError."""
        self._name = check_text(128)("name", name)
        self._engine, self._labels, self._interval = engine, labels, interval
        self._cursor = self._kept = ""
        self._away_since: float | None = None
        self.pause = 0.0  #: seconds until the next page is to be read

    def begin(self) -> None:
        """Take the kept cursor, or a new one, which is kept as well. Safe to repeat and concurrently."""
        now = read_ends(self._engine, NOW).cursor
        module = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        new = module.insert(listeners).values(name=self._name, position=now).on_conflict_do_nothing()
        with reachable(), self._engine.begin() as connection:
            connection.execute(new)
            kept = connection.scalar(select(listeners.c.position).where(listeners.c.name == self._name))
        self._cursor = self._kept = kept or now

    def read(self) -> tuple[Job, ...]:
        """The next page, which is empty if nothing has ended. So it is while the database is away, for ten minutes.

        No page comes before it is noted that the one before need not be handed on again.
        """
        try:
            self._keep()
            page = read_ends(self._engine, self._cursor, self._labels, AT_ONCE)
        except UnreachableError:
            now = time.monotonic()
            self._away_since = self._away_since or now
            if now - self._away_since > PATIENCE:
                raise
            self.pause = max(self._interval, 0.1)
            return ()
        self._away_since = None
        if not page.jobs:  # nothing that would be handed on again
            self._kept = page.cursor
        self._cursor = page.cursor
        self.pause = self._interval if len(page) < AT_ONCE else 0.0
        return page.jobs

    def keep(self) -> None:
        """Note that the jobs read so far need not be handed on again; later, while the database is away."""
        with suppress(UnreachableError):
            self._keep()

    def _keep(self) -> None:
        if self._cursor == self._kept:
            return
        kept = update(listeners).where(listeners.c.name == self._name).values(position=self._cursor)
        with reachable(), self._engine.begin() as connection:
            connection.execute(kept.values(updated_at=db_now()))
        self._kept = self._cursor

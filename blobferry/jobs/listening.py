"""Listening: the feed of ended jobs, read for ever, with its cursor kept in SQL under a name."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from blobferry.checks.arguments import check_text
from blobferry.client import Client
from blobferry.errors import UnreachableError
from blobferry.jobs.end_feed import NOW
from blobferry.jobs.job_options import Labels
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import listeners
from blobferry.values import Job

AT_ONCE: Final = 100  #: jobs of a page; so many at most are handed on again after a crash
PATIENCE: Final = 600.0  #: seconds that the database may be away

Answer = TypeVar("Answer")


def listen(client: Client, name: str, labels: Labels | None = None, interval: float = 1.0) -> Iterator[Job]:
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
    check_text(128)("name", name)
    cursor = _begin(client, name)
    return _ends(client, name, cursor, labels, interval)


def _ends(client: Client, name: str, cursor: str, labels: Labels | None, interval: float) -> Iterator[Job]:
    while True:
        page = _patiently(partial(client.finished, after=cursor, labels=labels, limit=AT_ONCE), interval)
        yield from page
        cursor = page.cursor
        if page.jobs:
            _patiently(partial(_save, client, name, cursor), interval)
        if len(page) < AT_ONCE:
            time.sleep(interval)


def _patiently(call: Callable[[], Answer], interval: float) -> Answer:
    gives_up_at = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except UnreachableError:
            if time.monotonic() > gives_up_at:
                raise
            time.sleep(max(interval, 0.1))


def _begin(client: Client, name: str) -> str:
    """The kept cursor of the listener, or a new one, which is kept as well. Safe to repeat and concurrently."""
    now = client.finished(after=NOW).cursor
    module = sqlite if client._engine.dialect.name == "sqlite" else postgresql
    new = module.insert(listeners).values(name=name, position=now).on_conflict_do_nothing()
    with reachable(), client._engine.begin() as connection:
        connection.execute(new)
        kept = connection.scalar(select(listeners.c.position).where(listeners.c.name == name))
    return kept or now


def _save(client: Client, name: str, cursor: str) -> None:
    kept = update(listeners).where(listeners.c.name == name).values(position=cursor, updated_at=db_now())
    with reachable(), client._engine.begin() as connection:
        connection.execute(kept)

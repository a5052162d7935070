"""Who owns the name of a file: the job that has written it, found by an idempotency key that is made of the path.

Storage, operation and key of a job are unique in SQL, so a name is given away once, in the transaction that writes the
row. A delete takes the key from the job that has written, which keeps a note of that in its place, and has it itself
from then on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b, sha256
from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, func, select, union_all, update

from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.tables import JOB_COLUMNS, jobs
from blobferry.values import Job

_LONGEST: Final = 240  #: characters of a path that its key shows
_CHANGES: Final = ("delete", "write_stream")
_RELEASED: Final = "was "  #: before the key of a job whose name was released


def owner_key(path: str) -> str:
    """The idempotency key of jobs that own this path."""
    return f"file {path}" if len(path) <= _LONGEST else f"file {sha256(path.encode()).hexdigest()}"


def has_released(job: Job) -> bool:
    """Whether the job has given back the name that it had."""
    return (job.idempotency_key or "").startswith(_RELEASED)


def latest_job(engine: Engine, storage: str, path: str) -> Job | None:
    """The job that owns the path: it has written it, or is to delete it; or the last that did. None if no row tells."""
    with _connected(engine) as connection:
        return find_latest(connection, storage, path)


def find_latest(connection: Connection, storage: str, path: str) -> Job | None:
    """As :func:`latest_job`, by this connection."""
    key = owner_key(path)
    found = select(*JOB_COLUMNS, db_now().label("seen_at")).where(_of(storage, key, _RELEASED + key))
    rows = connection.execute(found).mappings().all()  # four at most
    newest = max(rows, key=lambda row: int(row["seq"]), default=None)
    return None if newest is None else Job.from_row(dict(newest))


def lock_name(engine: Engine, storage: str, path: str) -> bool:
    """Whether nobody else is taking the name just now. Nobody does then until the transaction that is open ends.

    It never waits for another transaction on PostgreSQL; on SQLite one writes at a time.
    """
    with _connected(engine) as connection:
        if connection.dialect.name == "sqlite":
            become_writer(connection)
            return True
        number = int.from_bytes(blake2b(f"{storage}:{path}".encode(), digest_size=8).digest(), signed=True)
        return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(number))))


def release_name(engine: Engine, storage: str, path: str) -> None:
    """Let the name belong to nobody, in the transaction that is open."""
    with _connected(engine) as connection:
        note_release(connection, storage, path)


def note_release(connection: Connection, storage: str, path: str) -> None:
    """As :func:`release_name`, by this connection."""
    key = owner_key(path)
    connection.execute(update(jobs).where(_of(storage, _RELEASED + key)).values(idempotency_key=None))
    connection.execute(update(jobs).where(_of(storage, key)).values(idempotency_key=_RELEASED + key))


def become_writer(connection: Connection) -> None:
    """Let what is read next be the newest: a transaction that reads before it writes fails if another wrote between."""
    connection.execute(update(jobs).where(jobs.c.seq < 0).values(seq=jobs.c.seq))


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    """A connection in the transaction that is open."""
    with reachable(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def _of(storage: str, *keys: str) -> ColumnElement[bool]:
    """The jobs with these keys. One SELECT for each: SQLite takes an index for a key, and none for a choice of keys."""
    each = (
        select(jobs.c.seq).where(
            jobs.c.storage == storage, jobs.c.operation == operation, jobs.c.idempotency_key == key
        )
        for operation in _CHANGES
        for key in keys
    )
    return jobs.c.seq.in_(union_all(*each))

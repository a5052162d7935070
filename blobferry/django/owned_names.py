"""Who owns the name of a file: the job that has written it, found by an idempotency key that is made of the path.

Storage, operation and key of a job are unique in SQL, so a name is given away once, in the transaction that writes the
row. A delete takes the key from the job that has written, which keeps a note of that in its place, and has it itself
from then on.
"""

from hashlib import blake2b, sha256
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, update

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
    key = owner_key(path)
    found = select(*JOB_COLUMNS, db_now().label("seen_at")).where(*_of(storage, key, _RELEASED + key))
    newest = found.order_by(jobs.c.seq.desc()).limit(1)
    with reachable(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        row = connection.execute(newest).mappings().first()
    return None if row is None else Job.from_row(dict(row))


def lock_name(engine: Engine, storage: str, path: str) -> bool:
    """Whether nobody else is taking the name just now. Nobody does then until the transaction that is open ends.

    It never waits for another transaction on PostgreSQL; on SQLite one writes at a time.
    """
    with reachable(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "sqlite":
            _become_writer(connection)
            return True
        number = int.from_bytes(blake2b(f"{storage}:{path}".encode(), digest_size=8).digest(), signed=True)
        return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(number))))


def release_name(engine: Engine, storage: str, path: str) -> None:
    """Let the name belong to nobody, in the transaction that is open."""
    key = owner_key(path)
    with reachable(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(update(jobs).where(*_of(storage, _RELEASED + key)).values(idempotency_key=None))
        connection.execute(update(jobs).where(*_of(storage, key)).values(idempotency_key=_RELEASED + key))


def _of(storage: str, *keys: str) -> tuple[Any, ...]:
    return jobs.c.storage == storage, jobs.c.operation.in_(_CHANGES), jobs.c.idempotency_key.in_(keys)


def _become_writer(connection: Connection) -> None:
    """Let what is read next be the newest: a transaction that reads before it writes fails if another wrote between."""
    connection.execute(update(jobs).where(jobs.c.seq < 0).values(seq=jobs.c.seq))

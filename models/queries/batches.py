"""A batch on its way: its lease, its point of no return, and its end, each for many jobs at once.

Every function begins with :func:`lock_owned`, as each write of a single run begins with ``update_owned``: it checks the
token of every job and locks the rows, in the order of submission. All may be repeated, since the answer to a COMMIT may
be lost.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Insert, Select, Update, bindparam, case, delete, exists, insert, select, update
from sqlalchemy.orm import Session

from blobferry.contract import JobState, Phase, UploadState
from blobferry.sql.clock import db_now
from blobferry.sql.sqlite_connection import must_survive
from blobferry.sql.tables import attempts, jobs, path_locks, uploads
from models.claimed_job import CLAIMED, ClaimedJob
from models.queries.conditions import UNOWNED
from models.queries.given_rows import GivenRows, backend_of, bound
from models.queries.history import open_attempt
from models.queries.outbox import ENDED, note_end
from models.upload import Place


class Owned(NamedTuple):
    """A job that the run still owns."""

    cancel_requested: bool


def lock_owned(session: Session, tokens: Mapping[int, int]) -> dict[int, Owned]:
    """Lock those of the jobs (``seq`` and token) that their run still owns, and return them by ``seq``."""
    rows = session.execute(_owned(), {"seqs": list(tokens)})
    return {row.seq: Owned(bool(row.cancel_requested)) for row in rows if row.token == tokens[row.seq]}


def extend_leases(session: Session, tokens: Mapping[int, int], lease_seconds: float) -> set[int]:
    """Renew the leases; return the jobs that the run still owns."""
    owned = lock_owned(session, tokens)
    session.execute(_extend(lease_seconds), {"seqs": list(owned)})
    return set(owned)


def begin_completing_all(
    session: Session, tokens: Mapping[int, int], rows: Sequence[Mapping[str, Any]], *, storage: str, place: Place
) -> set[int]:
    """Pass the point of no return before the puts; return the jobs that have. A cancel or another run may come first.

    Each gets what a single run would have by now: its upload, completing, and the version that readers see.

    Args:
        tokens: of the jobs, by ``seq``.
        rows: for each job ``seq``, ``job_id``, ``key``, ``size``, ``fingerprint``, ``base_etag`` and ``base_mod_time``.
        storage: of all of them.
        place: where the storage puts them.
    """
    owned = lock_owned(session, tokens)
    must_survive(session)
    passing = [row for row in rows if row["seq"] in owned and not owned[row["seq"]].cancel_requested]
    if passing:
        backend = backend_of(session)
        session.execute(_complete(backend), bound(passing))
        where = {"in": storage, "bucket": place.bucket, "endpoint": place.endpoint, "identity": place.identity}
        session.execute(_open_uploads(backend), bound(passing, **{f"of_{name}": text for name, text in where.items()}))
    return {row["seq"] for row in passing}


def end_batch(
    session: Session,
    tokens: Mapping[int, int],
    *,
    succeeded: Sequence[Mapping[str, Any]],
    leaving: Sequence[Mapping[str, Any]],
) -> set[int]:
    """End the jobs whose blob Stat has shown; save how far the others have got; return the jobs that have ended.

    Args:
        tokens: of all of these jobs, by ``seq``.
        succeeded: for each job ``seq``, ``job_id``, ``attempt``, ``size``, ``etag``, ``version_id``, ``result``, and
            ``sent``, its attempts on the wire by verb, and ``storage`` and ``on_end``.
        leaving: for each job that an ordinary run goes on with ``seq``, ``job_id``, ``attempt``, ``sent``; ``phase``,
            ``upload_state``, ``etag``, ``version_id`` and ``size`` where they change, else null.
    """
    owned = lock_owned(session, tokens)
    ended = [row for row in succeeded if row["seq"] in owned]
    left = [row for row in leaving if row["seq"] in owned]
    backend = backend_of(session)
    if ended:
        session.execute(_succeed(backend), bound(ended))
        note_end(session, JobState.SUCCEEDED, {row["job_id"]: (row["storage"], row["on_end"]) for row in ended})
    if changed := [row for row in left if row["phase"]]:
        session.execute(_leave(backend), bound(changed))
    if ended or left:
        session.execute(_count(backend), bound([*({"outcome": "succeeded", **row} for row in ended), *left]))
    if settled := [*({"upload_state": UploadState.COMPLETED, **row} for row in ended), *changed]:
        session.execute(_settle_uploads(backend), bound(settled, of_jobs=[row["job_id"] for row in settled]))
    if ended:
        ids = [row["job_id"] for row in ended]
        session.execute(delete(path_locks).where(path_locks.c.job_id.in_(ids)))
        woken = update(jobs).where(jobs.c.waits_for.in_(ids)).values(waits_for=None, published_at=None)
        session.execute(woken)
    return {row["seq"] for row in ended}


def owned_jobs(session: Session, tokens: Mapping[int, int]) -> list[ClaimedJob]:
    """Those of the jobs that their run still owns, as a claim would have returned them."""
    owned = select(*CLAIMED).where(jobs.c.seq.in_(list(tokens)), jobs.c.lease_expires_at.is_not(None))
    found = [ClaimedJob(**row._mapping, was_in_batch=True) for row in session.execute(owned.order_by(jobs.c.seq)).all()]
    claimed = [job for job in found if job.token == tokens[job.seq]]
    for job in claimed:
        open_attempt(session, job)  # for what the batch has sent
    return claimed


def have_succeeded(session: Session, tokens: Mapping[int, int]) -> set[int]:
    """Those of the jobs that this run has ended: for a repeated :func:`end_batch`, whose answer was lost."""
    done = select(jobs.c.seq, jobs.c.token).where(jobs.c.seq.in_(list(tokens)), jobs.c.state == JobState.SUCCEEDED)
    return {seq for seq, token in session.execute(done) if token == tokens[seq]}


@cache
def _owned() -> Select[Any]:
    mine = (jobs.c.seq.in_(bindparam("seqs", expanding=True)), jobs.c.lease_expires_at.is_not(None))
    columns = (jobs.c.seq, jobs.c.token, jobs.c.cancel_requested)
    return select(*columns).where(*mine).order_by(jobs.c.seq).with_for_update()


@cache
def _extend(lease_seconds: float) -> Update:
    some = jobs.c.seq.in_(bindparam("seqs", expanding=True))
    return update(jobs).where(some).values(lease_expires_at=db_now(lease_seconds))


@cache
def _complete(backend: str) -> Update:
    given = GivenRows(backend)
    return (
        update(jobs)
        .where(jobs.c.seq == given.whole("seq"))
        .values(
            phase=Phase.COMPLETING,
            base_etag=given.text("base_etag"),
            size=given.whole("size"),
            source_fingerprint=given.json("fingerprint"),
            updated_at=db_now(),
        )
    )


@cache
def _open_uploads(backend: str) -> Insert:
    given = GivenRows(backend)
    values = {
        "job_id": given.text("job_id"),
        "storage": bindparam("of_in", type_=uploads.c.storage.type),
        "bucket": bindparam("of_bucket", type_=uploads.c.bucket.type),
        "endpoint": bindparam("of_endpoint", type_=uploads.c.endpoint.type),
        "identity": bindparam("of_identity", type_=uploads.c.identity.type),
        "key": given.text("key"),
        "size": given.whole("size"),
        "state": bindparam("of_state", UploadState.COMPLETING, type_=uploads.c.state.type),
        "base_etag": given.text("base_etag"),
        "base_mod_time": given.time("base_mod_time"),
    }
    is_there = exists().where(uploads.c.job_id == given.text("job_id"))  # from a try whose answer was lost
    return insert(uploads).from_select(list(values), select(*values.values()).where(~is_there))


@cache
def _succeed(backend: str) -> Update:
    given = GivenRows(backend)
    return (
        update(jobs)
        .where(jobs.c.seq == given.whole("seq"))
        .values(
            state=JobState.SUCCEEDED,
            phase=None,
            run_at=None,
            finished_at=db_now(),
            updated_at=db_now(),
            **ENDED,
            error_code=None,
            error_message=None,
            result=given.json("result"),
            etag=given.text("etag"),
            version_id=given.text("version_id"),
            bytes_done=given.whole("size"),
            bytes_sent=given.whole("size"),
            **UNOWNED,
        )
    )


@cache
def _leave(backend: str) -> Update:
    given = GivenRows(backend)
    return (
        update(jobs)
        .where(jobs.c.seq == given.whole("seq"))
        .values(
            phase=given.text("phase"),
            etag=given.text("etag"),
            version_id=given.text("version_id"),
            bytes_done=case((given.text("etag").is_not(None), given.whole("size")), else_=0),
            bytes_sent=case((given.text("etag").is_not(None), given.whole("size")), else_=0),
            updated_at=db_now(),
        )
    )


@cache
def _count(backend: str) -> Update:
    given = GivenRows(backend)
    outcome = given.text("outcome")
    return (
        update(attempts)
        .where(attempts.c.job_id == given.text("job_id"), attempts.c.attempt == given.whole("attempt"))
        .values(
            sent=given.json("sent"),
            bytes_sent=case((given.text("etag").is_not(None), given.whole("size")), else_=0),
            outcome=outcome,
            finished_at=case((outcome.is_not(None), db_now()), else_=None),
        )
    )


@cache
def _settle_uploads(backend: str) -> Update:
    given = GivenRows(backend)
    # The ids once more: PostgreSQL has no idea how few rows are given, and would rather read all uploads that are live.
    few = uploads.c.job_id.in_(bindparam("of_jobs", expanding=True))
    mine = (uploads.c.job_id == given.text("job_id"), uploads.c.state == UploadState.COMPLETING)
    return update(uploads).where(few, *mine).values(state=given.text("upload_state"), updated_at=db_now())

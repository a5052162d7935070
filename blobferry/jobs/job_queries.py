"""The SELECTs of single jobs, uploads and attempts for Client. They change nothing and take no lock.

:mod:`blobferry.jobs.job_search` finds jobs by a filter. Each statement brings the database's clock along as
``seen_at``, because the caller's clock may be wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, func, or_, select, text

from blobferry.contract import CLAIMABLE_STATES, UNFINISHED_UPLOADS, UploadState
from blobferry.jobs.delivery_log import find_deliveries
from blobferry.jobs.needs import LACKING_FOR, STOP_AFTER, needs_of
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import DUE, LIVE_UPLOAD, SCHEDULED
from blobferry.sql.tables import JOB_COLUMNS, attempts, jobs, parts, uploads
from blobferry.sql.worker_tables import lacks, workers
from blobferry.values import Attempt, Job, Situation, Upload

_FINISHED_UPLOADS: Final = (UploadState.COMPLETED, UploadState.GONE)
#: Ids in one SELECT. Fewer than the parameters that SQLite takes: 32,766. Source: SQLite, "Implementation Limits"
IDS_AT_ONCE: Final = 5_000

Row = Mapping[str, Any]


def find_job(connection: Connection, job_id: str) -> Row | None:
    """The row of the job, with the database's clock as ``seen_at``."""
    seen = select(*JOB_COLUMNS, db_now().label("seen_at")).where(jobs.c.id == job_id)
    row = connection.execute(seen).mappings().one_or_none()
    return None if row is None else dict(row)


def find_many(connection: Connection, job_ids: Sequence[str]) -> dict[str, Job]:
    """The jobs with these ids, by id; one SELECT for each ``IDS_AT_ONCE`` of them."""
    found: dict[str, Job] = {}
    for start in range(0, len(job_ids), IDS_AT_ONCE):
        asked = jobs.c.id.in_(job_ids[start : start + IDS_AT_ONCE])
        rows = connection.execute(select(*JOB_COLUMNS, db_now().label("seen_at")).where(asked)).mappings()
        found |= {row["id"]: Job.from_row(dict(row)) for row in rows}
    return found


def find_attempts(connection: Connection, job_id: str) -> list[Attempt]:
    """The attempts of the job, the oldest first."""
    found = select(attempts, jobs.c.bytes_sent.label("sent_by_job")).join(jobs, jobs.c.id == attempts.c.job_id)
    ordered = found.where(attempts.c.job_id == job_id).order_by(attempts.c.attempt)
    rows = [dict(row) for row in connection.execute(ordered).mappings()]
    if rows and rows[-1]["outcome"] is None:  # a run counts in the job's row; the attempt's own is written at its end
        sent = rows[-1]["sent_by_job"] - sum(row["bytes_sent"] for row in rows[:-1])
        rows[-1]["bytes_sent"] = max(rows[-1]["bytes_sent"], sent)
    return [Attempt.from_row(row) for row in rows]


def find_uploads(
    connection: Connection, *, job_id: str | None = None, finished: bool = False, limit: int | None = None
) -> list[Upload]:
    """The unfinished uploads, or with ``finished`` all, the oldest first; of one job if its id is given."""
    in_parts = select(func.coalesce(func.sum(parts.c.size), 0)).where(parts.c.upload == uploads.c.id).scalar_subquery()
    found = (
        select(uploads, jobs.c.state.label("job_state"), in_parts.label("in_parts"))
        .join(jobs, jobs.c.id == uploads.c.job_id)
        .order_by(uploads.c.id)
        .limit(limit)
    )
    if job_id is not None:
        found = found.where(uploads.c.job_id == job_id)
    if not finished:
        live = select(uploads.c.id).where(text(LIVE_UPLOAD)).order_by(uploads.c.id).limit(limit)
        of_job = uploads.c.state.not_in([str(state) for state in _FINISHED_UPLOADS])
        found = found.where(of_job if job_id is not None else uploads.c.id.in_(live))
    return [_upload(dict(row)) for row in connection.execute(found).mappings()]


def _upload(row: Row) -> Upload:
    # Part rows outlive their upload, and after an abort `recheck_at` no longer means that parts are kept.
    at_risk = 0 if row["state"] in _FINISHED_UPLOADS else int(row["in_parts"])
    kept_until = row["recheck_at"] if row["state"] in UNFINISHED_UPLOADS else None
    return Upload.from_row({**row, "bytes_at_risk": at_risk, "kept_until": kept_until})


def find_situation(connection: Connection, job_id: str) -> Situation | None:
    """The job with everything that explains its state; None for an unknown id."""
    row = find_job(connection, job_id)
    if row is None:
        return None
    holder = find_job(connection, row["waits_for"]) if row["waits_for"] is not None else None
    counted = ("failures", "crashes", "crash_streak", "restarts", "polls")
    others = ("published_at", "lease_expires_at", "max_attempts", "verify_until", "waits_for")
    return Situation(
        job=Job.from_row(row),
        attempts=tuple(find_attempts(connection, job_id)),
        uploads=tuple(find_uploads(connection, job_id=job_id)),
        holder=None if holder is None else Job.from_row(holder),
        ahead=_ahead(connection, row),
        workers=connection.scalar(select(func.count()).select_from(workers).where(workers.c.alive_until > db_now())),
        lacks=_lacks(connection, row),
        deliveries=tuple(find_deliveries(connection, job_id=job_id)),
        **{name: row[name] for name in (*counted, *others)},
    )


def _lacks(connection: Connection, row: Row) -> tuple[str, ...]:
    """The living workers that leave this job to others, each with its reason."""
    alive = select(workers.c.worker).where(workers.c.alive_until > db_now())
    lately = (lacks.c.met_at > db_now(-LACKING_FOR), lacks.c.times >= STOP_AFTER, lacks.c.worker.in_(alive))
    found = select(lacks).where(lacks.c.need.in_(sorted(needs_of(row))), *lately).order_by(lacks.c.name)
    return tuple(
        f"{lack.name} takes no jobs that need {lack.need}: {lack.reason}" for lack in connection.execute(found)
    )


def _ahead(connection: Connection, row: Row) -> int:
    """The number of jobs that may be claimed now and come first: of higher priority, or of equal priority and older."""
    if row["state"] not in CLAIMABLE_STATES or row["lease_expires_at"] is not None:
        return 0
    due = select(jobs.c.seq).where(text(DUE))
    # Those whose time has come, but that no publish has looked at since then.
    come = select(jobs.c.seq).where(text(SCHEDULED), jobs.c.run_at <= select(db_now()).scalar_subquery())
    before = or_(jobs.c.priority > row["priority"], and_(jobs.c.priority == row["priority"], jobs.c.seq < row["seq"]))
    counts = (select(func.count()).select_from(each.where(before).subquery()) for each in (due, come))
    return sum(int(connection.scalar(count) or 0) for count in counts)

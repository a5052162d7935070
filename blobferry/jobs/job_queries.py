"""The SELECTs of jobs, uploads and attempts for Client. They change nothing and take no lock.

Each brings the database's clock along as ``seen_at``, because the caller's clock may be wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from blobferry.contract import CLAIMABLE_STATES, UNFINISHED_UPLOADS, JobState, UploadState
from blobferry.jobs.delivery_log import find_deliveries
from blobferry.jobs.job_filter import JobFilter
from blobferry.jobs.needs import LACKING_FOR, STOP_AFTER, needs_of
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import DUE, LIVE_UPLOAD, OF_STATE, SCHEDULED
from blobferry.sql.prefixes import begins_with
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


def find_jobs(connection: Connection, wanted: JobFilter) -> list[Job]:
    """The newest jobs that match, the newest first.

    Jobs of some states or times are found by an index. The other arguments are compared with one job after another, so
    a listing by them alone reads as many jobs as it takes to find ``limit``.
    """
    matching = _matching(connection, wanted)
    if wanted.since is not None or wanted.until is not None:
        order: tuple[ColumnElement[Any], ...] = (jobs.c.created_at.desc(), jobs.c.seq.desc())
        matching += [jobs.c.state.in_([str(state) for state in wanted.states])] if wanted.states else []
    else:
        order = (jobs.c.seq.desc(),)
        matching += [jobs.c.seq.in_(_newest_of(wanted.states, matching, wanted.limit))] if wanted.states else []
    seen = select(*JOB_COLUMNS, db_now().label("seen_at")).where(*matching).order_by(*order).limit(wanted.limit)
    return [Job.from_row(dict(row)) for row in connection.execute(seen).mappings()]


def _matching(connection: Connection, wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions of the filter but for the states."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(jobs.c.created_at < wanted.until)
    if wanted.operation is not None:
        conditions.append(jobs.c.operation == wanted.operation)
    if wanted.storage is not None:
        conditions.append(jobs.c.storage == wanted.storage)
    if wanted.under is not None and wanted.under != "/":
        conditions.append(or_(jobs.c.path == wanted.under, begins_with(jobs.c.path, f"{wanted.under}/")))
    if wanted.labels:
        conditions.append(has_labels(connection, wanted.labels))
    return conditions


def _newest_of(
    states: Sequence[JobState], matching: Sequence[ColumnElement[bool]], limit: int
) -> CompoundSelect[tuple[int]]:
    """The newest jobs of each state; each is read from the end of the index that has it."""
    newest = select(jobs.c.seq).where(*matching).order_by(jobs.c.seq.desc()).limit(limit)
    of_states = (newest.where(text(OF_STATE[state])) for state in states)
    return union_all(*(select(of_state.subquery()) for of_state in of_states))


def has_labels(connection: Connection, labels: Mapping[str, str]) -> ColumnElement[bool]:
    """The job has these labels, and perhaps others."""
    if connection.dialect.name == "postgresql":
        return type_coerce(jobs.c.labels, JSONB).contains(dict(labels))
    # Not a JSON path: SQLite's syntax of paths cannot express a name with a quotation mark.
    conditions = []
    for name, value in labels.items():
        label = func.json_each(jobs.c.labels).table_valued("key", "value").alias()
        pair = select(literal(1)).select_from(label).where(label.c.key == name, label.c.value == value)
        conditions.append(exists(pair))
    return and_(*conditions)


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

"""The tables in SQLAlchemy Core, shared by client and worker. ``models`` maps classes onto them.

They live in the web app's own database, hence the prefix. Every column is nullable or has a server default, so that a
client one minor version older or newer than the worker can insert rows. Times are UTC and come from the database's
clock (:class:`db_now`), because the clocks of workers may differ by hours.
"""

from typing import Any, Final

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from blobferry.sql import index_conditions as only
from blobferry.sql.columns import BIG_INTEGER, JSON_VALUE, clock, count, flag, time, words

VERSION_TABLE: Final = "blobferry_alembic_version"


def _of_job(*, is_key: bool = False) -> Column[str]:
    of_job = ForeignKey("blobferry_jobs.id", ondelete="CASCADE")
    return Column("job_id", String(155), of_job, nullable=False, primary_key=is_key)


def _index(name: str, *columns: Any, where: str | None = None, prefix: str | None = None) -> Index:
    """An index, partial with ``where``; ``prefix`` is the column by whose first characters it is searched."""
    how: dict[str, Any] = {"postgresql_ops": {prefix: "text_pattern_ops"}} if prefix else {}
    if where is not None:
        how |= {"postgresql_where": text(where), "sqlite_where": text(where)}
    return Index(f"ix_blobferry_{name}", *columns, **how)


def _room(vacuum_at: float, *, fill: int | None = None) -> dict[str, Any]:
    """How PostgreSQL keeps a table that is updated all the time.

    Args:
        vacuum_at: the dead rows, as a part of all, at which autovacuum begins; its default is 0.2, of a million rows.
        fill: how full a page may be, in percent, so that an update finds place beside the old version.
    """
    options = {"fillfactor": fill} if fill else {}
    vacuum = {"vacuum_scale_factor": vacuum_at, "vacuum_threshold": 1000, "analyze_scale_factor": max(vacuum_at, 0.02)}
    return {"postgresql_with": {**options, **{f"autovacuum_{name}": value for name, value in vacuum.items()}}}


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "blobferry_jobs",
    metadata,
    Column("seq", BIG_INTEGER, primary_key=True, autoincrement=True),  # the order of submission
    Column("id", String(155), nullable=False, unique=True),  # also the Celery task id
    # what was asked for
    words("operation", 32, ""),
    words("storage", 64, "default"),
    Column("path", String(1024)),
    Column("source", Text),
    Column("dest", Text),  # of a read_stream: the file: URL
    Column("request", JSON_VALUE),  # the arguments of the operation, as the task takes them
    Column("request_version", Integer, nullable=False, server_default=text("1")),
    Column("labels", JSON_VALUE),
    Column("tenant", String(128)),
    Column("idempotency_key", String(255)),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    time("not_before"),
    time("deadline"),
    # the message
    words("queue", 64, "blobferry"),
    Column("message_options", JSON_VALUE),  # link, link_error, chain, chord: sent again with each publish
    Column("parent_id", String(155)),
    Column("root_id", String(155)),
    count("publish_seq"),  # the number that a message must carry; each claim raises it
    time("published_at"),  # null: not published since it last became claimable
    # the state
    words("state", 16, "queued"),
    Column("phase", String(32)),  # finer than the state; decides where a resumed run continues
    time("run_at"),  # null or past: may be claimed
    Column("waits_for", String(155)),  # the job that holds a path that this one needs, or comes before it in line
    flag("cancel_requested"),
    flag("pause_requested"),
    clock("created_at"),
    clock("updated_at"),
    time("started_at"),
    time("finished_at"),
    # the owning run
    count("token"),  # the fencing token: every write of a run checks it
    Column("worker", String(255)),
    time("lease_expires_at"),  # null: no run owns it
    # counters
    count("attempt"),  # 1 + resumes after an error or a dead worker; slices do not count
    count("failures"),  # runs in a row that ended in an error without progress
    Column("max_attempts", Integer),  # retry.max_attempts of the worker that last recorded a failure
    count("crashes"),  # workers that died with this job, in all
    count("crash_streak"),  # workers that died with this job in a row
    count("restarts"),  # uploads begun again from byte 0
    count("polls"),  # polls of Stat
    # progress
    Column("size", BIG_INTEGER),
    Column("source_fingerprint", JSON_VALUE),
    count("bytes_done"),
    count("bytes_sent"),
    # what readers saw before, and see after
    Column("base_etag", Text),  # "" for an absent blob
    Column("etag", Text),
    Column("version_id", Text),
    time("verify_until"),
    # what a resumed delete needs
    time("cutoff"),  # by the store's clock: nothing newer goes
    flag("deleted_any"),
    # the outcome
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("result", JSON_VALUE),
    # what is told at its end: :mod:`blobferry.sql.outbox_tables`
    Column("on_end", JSON_VALUE),  # null: nobody has asked for anything
    count("ends"),  # how often it has ended: a failed job may be retried
    Column("ended_in", BIG_INTEGER),  # the transaction of its last end
    # the source's file
    Column("spooled", String(128)),  # the name of a file in the spool directory
    flag("removes_source"),  # once the job has succeeded; false again when that is done
    # The bytes of a put_content. The last column: SQLite then reads the others without it.
    Column("contents", LargeBinary),
    UniqueConstraint("storage", "operation", "idempotency_key"),
    # The statements of a sweep, a claim or a listing each have an index, which holds no more rows than they ask about.
    _index("jobs_best", text("priority DESC"), "seq", where=only.DUE),
    _index("jobs_oldest", "seq", where=only.DUE),
    _index("jobs_published_at", "published_at", where=only.PUBLISHED),
    _index("jobs_run_at", "run_at", where=only.SCHEDULED),
    _index("jobs_worker", "worker", where=only.OWNED),
    _index("jobs_requested", "seq", where=only.REQUESTED),
    _index("jobs_deadline", "deadline", where=only.DATED),
    _index("jobs_waits_for", "waits_for", where="waits_for IS NOT NULL"),
    _index("jobs_path", "path", "seq", where=only.UNFINISHED, prefix="path"),
    _index("jobs_any_path", "path", "seq", prefix="path"),
    _index("jobs_source", "source", "seq", where=only.MOVED, prefix="source"),
    _index("jobs_copied", "source", "seq", where=only.COPIED, prefix="source"),
    _index("jobs_spooled", "spooled", where="spooled IS NOT NULL"),
    _index("jobs_removing", "seq", where=only.REMOVING),
    _index("jobs_finished_at", "finished_at", where="finished_at IS NOT NULL"),
    _index("jobs_ended", "ended_in", "seq", where="ended_in IS NOT NULL"),
    *(_index(f"jobs_{state}", "seq", where=condition) for state, condition in only.OF_STATE.items()),
    _index("jobs_created_at", "created_at"),
    sqlite_autoincrement=True,
    **_room(0.02, fill=80),
)

#: Those that lie behind the bytes of a put_content on SQLite, or are these; the others are read without them.
APART: Final = ("contents", "on_end", "ends", "ended_in")
JOB_COLUMNS: Final = tuple(column for column in jobs.columns if column.name not in APART)

uploads = Table(
    "blobferry_uploads",
    metadata,
    Column("id", BIG_INTEGER, primary_key=True, autoincrement=True),
    _of_job(),
    Column("upload_id", Text),  # null until the store has answered
    words("storage", 64, "default"),
    words("bucket", 255, ""),
    Column("endpoint", Text, nullable=False, server_default=""),
    Column("identity", Text),  # of bucket and endpoint, however they are spelled; null: of an older worker
    Column("key", Text, nullable=False, server_default=""),
    Column("size", BIG_INTEGER),
    Column("part_size", BIG_INTEGER),
    count("head"),  # size of the prefix that the store copies itself
    count("head_parts"),  # number of its parts
    words("state", 16, "opening"),
    clock("opened_at"),
    clock("updated_at"),
    Column("base_etag", Text),  # what was visible when it was opened; "" for an absent blob
    time("base_mod_time"),  # of that blob, by the store's clock
    time("recheck_at"),  # an aborted upload is looked at once more: a part in flight may have landed
    _index("uploads_job_id", "job_id"),
    _index("uploads_key", "key"),
    _index("uploads_live", "id", where=only.LIVE_UPLOAD),
    _index("uploads_aborting", "updated_at", where=only.ABORTING),
    _index("uploads_recheck_at", "recheck_at", where="recheck_at IS NOT NULL"),
    sqlite_autoincrement=True,
    **_room(0.05, fill=80),
)

parts = Table(
    "blobferry_parts",
    metadata,
    Column("upload", BIG_INTEGER, ForeignKey("blobferry_uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("part_number", Integer, primary_key=True, autoincrement=False),
    Column("offset", BIG_INTEGER, nullable=False, server_default=text("0")),
    Column("size", BIG_INTEGER, nullable=False, server_default=text("0")),
    Column("etag", Text, nullable=False, server_default=""),
    Column("checksum", Text),  # "CRC64NVME:base64"
    **_room(0.05),
)

attempts = Table(
    "blobferry_attempts",
    metadata,
    _of_job(is_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(255)),  # the last one, where slices moved it
    clock("started_at"),
    time("finished_at"),
    Column("outcome", String(16)),  # null while the attempt lasts; succeeded, failed, retrying, died, cancelled
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("remark", Text),  # something else worth knowing, such as an upload that was lost and begun again
    count("bytes_sent"),
    Column("sent", JSON_VALUE),  # attempts on the wire by verb, repeated ones included
    **_room(0.05, fill=80),
)

path_locks = Table(
    "blobferry_path_locks",
    metadata,
    Column("bucket", String(512), primary_key=True),  # endpoint and bucket: two storages may name one bucket
    Column("path", String(1024), primary_key=True),  # the whole key, its storage's root directory included
    _of_job(is_key=True),
    flag("is_tree"),  # everything below it, too
    flag("is_shared"),  # read only: others may read it as well
    _index("path_locks_job_id", "job_id"),
    _index("path_locks_path", "path", prefix="path"),
    **_room(0.0),
)

tombstones = Table(
    "blobferry_tombstones",
    metadata,
    Column("id", String(155), primary_key=True),  # of a pruned job: a replayed message must not start it again
    clock("finished_at"),
    clock("pruned_at"),  # it is kept from then on, however long the row of the job was
    _index("tombstones_pruned_at", "pruned_at"),
)

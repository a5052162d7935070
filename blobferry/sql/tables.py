"""The tables in SQLAlchemy Core, shared by client and worker. ``models`` maps classes onto them.

They live in the web app's own database, hence the prefix. Every column is nullable or has a server default, so that a
client one minor version older or newer than the worker can insert rows. Times are UTC and come from the database's
clock (:class:`db_now`), because the clocks of workers may differ by hours.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from blobferry.sql.clock import UtcDateTime, db_now

VERSION_TABLE: Final = "blobferry_alembic_version"


_BigInt = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def _count(name: str) -> Column[int]:
    return Column(name, _BigInt, nullable=False, server_default=text("0"))


def _words(name: str, length: int, default: str) -> Column[str]:
    return Column(name, String(length), nullable=False, server_default=default)


def _time(name: str) -> Column[datetime]:
    return Column(name, UtcDateTime())


def _clock(name: str) -> Column[datetime]:
    return Column(name, UtcDateTime(), nullable=False, server_default=db_now())


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=false())


def _of_job(*, is_key: bool = False) -> Column[str]:
    of_job = ForeignKey("blobferry_jobs.id", ondelete="CASCADE")
    return Column("job_id", String(155), of_job, nullable=False, primary_key=is_key)


_WAITING: Final = "lease_expires_at IS NULL AND waits_for IS NULL AND state IN ('queued', 'retrying', 'verifying')"
_UNFINISHED: Final = "state IN ('paused', 'queued', 'retrying', 'running', 'verifying')"


def _only(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


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
    Column("seq", _BigInt, primary_key=True, autoincrement=True),  # the order of submission
    Column("id", String(155), nullable=False, unique=True),  # also the Celery task id
    # what was asked for
    _words("operation", 32, ""),
    _words("storage", 64, "default"),
    Column("path", String(1024)),
    Column("source", Text),
    Column("dest", Text),  # of a read_stream: the file: URL
    Column("request", _Json),  # the arguments of the operation, as the task takes them
    Column("request_version", Integer, nullable=False, server_default=text("1")),
    Column("labels", _Json),
    Column("tenant", String(128)),
    Column("idempotency_key", String(255)),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    _time("not_before"),
    _time("deadline"),
    # the message
    _words("queue", 64, "blobferry"),
    Column("message_options", _Json),  # link, link_error, chain, chord: sent again with each publish
    Column("parent_id", String(155)),
    Column("root_id", String(155)),
    _count("publish_seq"),  # the number that a message must carry; each claim raises it
    _time("published_at"),  # null: not published since it last became claimable
    # the state
    _words("state", 16, "queued"),
    Column("phase", String(32)),  # finer than the state; decides where a resumed run continues
    _time("run_at"),  # null or past: may be claimed
    Column("waits_for", String(155)),  # the job that holds a path that this one needs, or comes before it in line
    _flag("cancel_requested"),
    _flag("pause_requested"),
    _clock("created_at"),
    _clock("updated_at"),
    _time("started_at"),
    _time("finished_at"),
    # the owning run
    _count("token"),  # the fencing token: every write of a run checks it
    Column("worker", String(255)),
    _time("lease_expires_at"),  # null: no run owns it
    # counters
    _count("attempt"),  # 1 + resumes after an error or a dead worker; slices do not count
    _count("failures"),  # runs in a row that ended in an error without progress
    Column("max_attempts", Integer),  # retry.max_attempts of the worker that last recorded a failure
    _count("crashes"),  # workers that died with this job, in all
    _count("crash_streak"),  # workers that died with this job in a row
    _count("restarts"),  # uploads begun again from byte 0
    _count("polls"),  # polls of Stat
    # progress
    Column("size", _BigInt),
    Column("source_fingerprint", _Json),
    _count("bytes_done"),
    _count("bytes_sent"),
    # what readers saw before, and see after
    Column("base_etag", Text),  # "" for an absent blob
    Column("etag", Text),
    Column("version_id", Text),
    _time("verify_until"),
    # what a resumed delete needs
    _time("cutoff"),  # by the store's clock: nothing newer goes
    _flag("deleted_any"),
    # the outcome
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("result", _Json),
    UniqueConstraint("storage", "operation", "idempotency_key"),
    # For the caretaker, among any number of finished jobs. The conditions are those of its statements, word for word.
    Index("ix_blobferry_jobs_best", text("priority DESC"), "seq", **_only(_WAITING)),
    Index("ix_blobferry_jobs_oldest", "seq", **_only(_WAITING)),
    Index("ix_blobferry_jobs_published_at", "published_at", **_only(_WAITING)),
    Index("ix_blobferry_jobs_run_at", "run_at", **_only(_WAITING)),
    Index("ix_blobferry_jobs_deadline", "deadline", **_only("cancel_requested OR deadline IS NOT NULL")),
    Index("ix_blobferry_jobs_lease_expires_at", "lease_expires_at"),
    Index("ix_blobferry_jobs_waits_for", "waits_for", **_only("waits_for IS NOT NULL")),
    Index("ix_blobferry_jobs_path", "path", "seq", **_only(_UNFINISHED)),
    Index("ix_blobferry_jobs_source", "source", "seq", **_only(f"operation = 'move' AND {_UNFINISHED}")),
    Index("ix_blobferry_jobs_copied", "source", "seq", **_only(f"substr(source, 1, 7) = 'blob://' AND {_UNFINISHED}")),
    Index("ix_blobferry_jobs_finished_at", "finished_at"),
    sqlite_autoincrement=True,
)

uploads = Table(
    "blobferry_uploads",
    metadata,
    Column("id", _BigInt, primary_key=True, autoincrement=True),
    _of_job(),
    Column("upload_id", Text),  # null until the store has answered
    _words("storage", 64, "default"),
    _words("bucket", 255, ""),
    Column("endpoint", Text, nullable=False, server_default=""),
    Column("identity", Text),  # of bucket and endpoint, however they are spelled; null: of an older worker
    Column("key", Text, nullable=False, server_default=""),
    Column("size", _BigInt),
    Column("part_size", _BigInt),
    _count("head"),  # size of the prefix that the store copies itself
    _count("head_parts"),  # number of its parts
    _words("state", 16, "opening"),
    _clock("opened_at"),
    _clock("updated_at"),
    Column("base_etag", Text),  # what was visible when it was opened; "" for an absent blob
    _time("base_mod_time"),  # of that blob, by the store's clock
    _time("recheck_at"),  # an aborted upload is looked at once more: a part in flight may have landed
    Index("ix_blobferry_uploads_job_id", "job_id"),
    Index("ix_blobferry_uploads_key", "key"),
    Index("ix_blobferry_uploads_state", "state"),
    Index("ix_blobferry_uploads_recheck_at", "recheck_at", **_only("recheck_at IS NOT NULL")),
    sqlite_autoincrement=True,
)

parts = Table(
    "blobferry_parts",
    metadata,
    Column("upload", _BigInt, ForeignKey("blobferry_uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("part_number", Integer, primary_key=True, autoincrement=False),
    Column("offset", _BigInt, nullable=False, server_default=text("0")),
    Column("size", _BigInt, nullable=False, server_default=text("0")),
    Column("etag", Text, nullable=False, server_default=""),
    Column("checksum", Text),  # "CRC64NVME:base64"
)

attempts = Table(
    "blobferry_attempts",
    metadata,
    Column(
        "job_id",
        String(155),
        ForeignKey("blobferry_jobs.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(255)),  # the last one, where slices moved it
    _clock("started_at"),
    _time("finished_at"),
    Column("outcome", String(16)),  # null while the attempt lasts; succeeded, failed, retrying, died, cancelled
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("remark", Text),  # something else worth knowing, such as an upload that was lost and begun again
    _count("bytes_sent"),
    Column("sent", _Json),  # attempts on the wire by verb, repeated ones included
)

path_locks = Table(
    "blobferry_path_locks",
    metadata,
    Column("bucket", String(512), primary_key=True),  # endpoint and bucket: two storages may name one bucket
    Column("path", String(1024), primary_key=True),  # the whole key, its storage's root directory included
    _of_job(is_key=True),
    _flag("is_tree"),  # everything below it, too
    _flag("is_shared"),  # read only: others may read it as well
    Index("ix_blobferry_path_locks_job_id", "job_id"),
)

capabilities = Table(
    "blobferry_capabilities",
    metadata,
    Column("store", String(512), primary_key=True),  # its identity
    Column("capability", String(64), primary_key=True),  # that it was seen to lack
    Column("reason", Text),
    _clock("seen_at"),
)

tombstones = Table(
    "blobferry_tombstones",
    metadata,
    Column("id", String(155), primary_key=True),  # of a pruned job: a replayed message must not start it again
    _clock("finished_at"),
    _clock("pruned_at"),  # it is kept from then on, however long the row of the job was
    Index("ix_blobferry_tombstones_pruned_at", "pruned_at"),
)

"""The first tables.

Safe on a running system: expand first (nullable columns, or with a server default), contract in a later release.
An index on a table with rows is made, replaced and dropped by blobferry.sql.live_indexes, so that nobody waits for it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from blobferry.sql import clock

revision: str = "0001"
down_revision: str | None = None
branch_labels = ("blobferry",)  # of all of them, for apps that run them by their own Alembic
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WAITING = "lease_expires_at IS NULL AND state IN ('queued', 'retrying', 'verifying')"


def only(condition: str) -> dict[str, sa.TextClause]:
    """A partial index, on both databases."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "blobferry_jobs",
        sa.Column("seq", BIG, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=155), nullable=False),
        sa.Column("operation", sa.String(length=32), server_default="", nullable=False),
        sa.Column("storage", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("request", JSON, nullable=True),
        sa.Column("request_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("labels", JSON, nullable=True),
        sa.Column("tenant", sa.String(length=128), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("deadline", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("queue", sa.String(length=64), server_default="blobferry", nullable=False),
        sa.Column("message_options", JSON, nullable=True),
        sa.Column("parent_id", sa.String(length=155), nullable=True),
        sa.Column("root_id", sa.String(length=155), nullable=True),
        sa.Column("publish_seq", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("published_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(length=16), server_default="queued", nullable=False),
        sa.Column("phase", sa.String(length=32), nullable=True),
        sa.Column("run_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("pause_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.Column("updated_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.Column("started_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("finished_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("token", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("lease_expires_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("attempt", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("failures", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("crash_streak", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("restarts", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("polls", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("size", BIG, nullable=True),
        sa.Column("source_fingerprint", JSON, nullable=True),
        sa.Column("bytes_done", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("bytes_sent", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("base_etag", sa.Text(), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("version_id", sa.Text(), nullable=True),
        sa.Column("verify_until", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_blobferry_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_blobferry_jobs_id")),
        sa.UniqueConstraint(
            "storage", "operation", "idempotency_key", name=op.f("uq_blobferry_jobs_storage_operation_idempotency_key")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_blobferry_jobs_finished_at", "blobferry_jobs", ["finished_at"])
    op.create_index("ix_blobferry_jobs_lease_expires_at", "blobferry_jobs", ["lease_expires_at"])
    for name, columns in {
        "best": [sa.text("priority DESC"), "seq"],
        "oldest": ["seq"],
        "published_at": ["published_at"],
        "run_at": ["run_at"],
    }.items():
        op.create_index(f"ix_blobferry_jobs_{name}", "blobferry_jobs", columns, **only(WAITING))
    with_end = only("cancel_requested OR deadline IS NOT NULL")
    op.create_index("ix_blobferry_jobs_deadline", "blobferry_jobs", ["deadline"], **with_end)

    op.create_table(
        "blobferry_tombstones",
        sa.Column("id", sa.String(length=155), nullable=False),
        sa.Column("finished_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobferry_tombstones")),
    )
    op.create_index("ix_blobferry_tombstones_finished_at", "blobferry_tombstones", ["finished_at"])

    op.create_table(
        "blobferry_attempts",
        sa.Column("job_id", sa.String(length=155), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("started_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.Column("finished_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("bytes_sent", BIG, server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["blobferry_jobs.id"], name=op.f("fk_blobferry_attempts_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_blobferry_attempts")),
    )
    op.create_table(
        "blobferry_path_locks",
        sa.Column("bucket", sa.String(length=512), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("job_id", sa.String(length=155), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["blobferry_jobs.id"], name=op.f("fk_blobferry_path_locks_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("bucket", "path", name=op.f("pk_blobferry_path_locks")),
    )
    op.create_index("ix_blobferry_path_locks_job_id", "blobferry_path_locks", ["job_id"])

    op.create_table(
        "blobferry_uploads",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=155), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.Column("storage", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("bucket", sa.String(length=255), server_default="", nullable=False),
        sa.Column("endpoint", sa.Text(), server_default="", nullable=False),
        sa.Column("key", sa.Text(), server_default="", nullable=False),
        sa.Column("size", BIG, nullable=True),
        sa.Column("part_size", BIG, nullable=True),
        sa.Column("state", sa.String(length=16), server_default="opening", nullable=False),
        sa.Column("opened_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.Column("updated_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.Column("base_etag", sa.Text(), nullable=True),
        sa.Column("base_mod_time", clock.UtcDateTime(timezone=True), nullable=True),
        sa.Column("recheck_at", clock.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["blobferry_jobs.id"], name=op.f("fk_blobferry_uploads_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobferry_uploads")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_blobferry_uploads_job_id", "blobferry_uploads", ["job_id"])
    op.create_index("ix_blobferry_uploads_key", "blobferry_uploads", ["key"])
    op.create_index("ix_blobferry_uploads_state", "blobferry_uploads", ["state"])
    rechecked = only("recheck_at IS NOT NULL")
    op.create_index("ix_blobferry_uploads_recheck_at", "blobferry_uploads", ["recheck_at"], **rechecked)

    op.create_table(
        "blobferry_parts",
        sa.Column("upload", BIG, nullable=False),
        sa.Column("part_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("size", BIG, server_default=sa.text("0"), nullable=False),
        sa.Column("etag", sa.Text(), server_default="", nullable=False),
        sa.Column("checksum", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["upload"], ["blobferry_uploads.id"], name=op.f("fk_blobferry_parts_upload"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("upload", "part_number", name=op.f("pk_blobferry_parts")),
    )


def downgrade() -> None:
    """Drop all tables."""
    op.drop_table("blobferry_parts")
    op.drop_table("blobferry_uploads")
    op.drop_table("blobferry_path_locks")
    op.drop_table("blobferry_attempts")
    op.drop_table("blobferry_tombstones")
    op.drop_table("blobferry_jobs")

"""Path locks that readers share, an index of copied blobs, the place of an upload, the time of a pruning."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql import clock
from blobferry.sql.live_indexes import create_live_index, drop_live_index

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

UNFINISHED = "state IN ('paused', 'queued', 'retrying', 'running', 'verifying')"
LOCKS_KEY = "pk_blobferry_path_locks"


def has_column(table: str, name: str) -> bool:
    """Whether a run of this migration that broke off has added the column."""
    return name in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}


def upgrade() -> None:
    """Add the indexes, then the columns; they have defaults, as old workers need."""
    copied = f"substr(source, 1, 7) = 'blob://' AND {UNFINISHED}"
    create_live_index("ix_blobferry_jobs_copied", "blobferry_jobs", ["source", "seq"], where=copied)
    if not has_column("blobferry_path_locks", "is_shared"):
        with op.batch_alter_table("blobferry_path_locks") as locks:
            locks.add_column(sa.Column("is_shared", sa.Boolean(), server_default=sa.false(), nullable=False))
            locks.drop_constraint(LOCKS_KEY, type_="primary")
            locks.create_primary_key(LOCKS_KEY, ["bucket", "path", "job_id"])
    if not has_column("blobferry_uploads", "identity"):
        op.add_column("blobferry_uploads", sa.Column("identity", sa.Text(), nullable=True))
    if not has_column("blobferry_tombstones", "pruned_at"):
        add_pruned_at()
    create_live_index("ix_blobferry_tombstones_pruned_at", "blobferry_tombstones", ["pruned_at"])
    drop_live_index("ix_blobferry_tombstones_finished_at", "blobferry_tombstones")


def add_pruned_at() -> None:
    """Count the time of each tombstone from now on."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    # With now(), which PostgreSQL takes once, the rows that are there are not written anew.
    at_once = clock.db_now() if is_sqlite else sa.text("now()")
    pruned_at = sa.Column("pruned_at", clock.UtcDateTime(timezone=True), server_default=at_once, nullable=False)
    with op.batch_alter_table("blobferry_tombstones", recreate="auto" if not is_sqlite else "always") as tombstones:
        tombstones.add_column(pruned_at)
    if not is_sqlite:
        op.alter_column("blobferry_tombstones", "pruned_at", server_default=clock.db_now())


def downgrade() -> None:
    """Drop the columns and indexes. Readers lose their locks and take them anew, one at a time."""
    create_live_index("ix_blobferry_tombstones_finished_at", "blobferry_tombstones", ["finished_at"])
    drop_live_index("ix_blobferry_tombstones_pruned_at", "blobferry_tombstones")
    with op.batch_alter_table("blobferry_tombstones") as tombstones:
        tombstones.drop_column("pruned_at")
    op.drop_column("blobferry_uploads", "identity")
    op.execute("DELETE FROM blobferry_path_locks WHERE is_shared")
    with op.batch_alter_table("blobferry_path_locks") as locks:
        locks.drop_constraint(LOCKS_KEY, type_="primary")
        locks.create_primary_key(LOCKS_KEY, ["bucket", "path"])
        locks.drop_column("is_shared")
    drop_live_index("ix_blobferry_jobs_copied", "blobferry_jobs")

"""Jobs wait for each other's paths; the history of attempts has remarks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from blobferry.sql.live_indexes import create_live_index, drop_live_index, replace_live_index

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

OLD_WAITING = "lease_expires_at IS NULL AND state IN ('queued', 'retrying', 'verifying')"
WAITING = "lease_expires_at IS NULL AND waits_for IS NULL AND state IN ('queued', 'retrying', 'verifying')"
UNFINISHED = "state IN ('paused', 'queued', 'retrying', 'running', 'verifying')"
OF_WAITING = {
    "best": [sa.text("priority DESC"), "seq"],
    "oldest": ["seq"],
    "published_at": ["published_at"],
    "run_at": ["run_at"],
}


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add the column, unless a run of this migration that broke off has added it."""
    if column.name not in {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def index_waiting(condition: str) -> None:
    """Recreate the caretaker's indexes."""
    for name, columns in OF_WAITING.items():
        replace_live_index(f"ix_blobferry_jobs_{name}", "blobferry_jobs", columns, where=condition)


def upgrade() -> None:
    """Add columns and indexes; the columns are nullable or have a default, as old workers need."""
    add_column("blobferry_jobs", sa.Column("waits_for", sa.String(155), nullable=True))
    add_column("blobferry_attempts", sa.Column("remark", sa.Text(), nullable=True))
    add_column("blobferry_path_locks", sa.Column("is_tree", sa.Boolean(), server_default=sa.false(), nullable=False))
    index_waiting(WAITING)
    create_live_index("ix_blobferry_jobs_waits_for", "blobferry_jobs", ["waits_for"], where="waits_for IS NOT NULL")
    create_live_index("ix_blobferry_jobs_path", "blobferry_jobs", ["path", "seq"], where=UNFINISHED)
    moved = f"operation = 'move' AND {UNFINISHED}"
    create_live_index("ix_blobferry_jobs_source", "blobferry_jobs", ["source", "seq"], where=moved)


def downgrade() -> None:
    """Drop the columns and indexes."""
    for name in ("source", "path", "waits_for"):
        drop_live_index(f"ix_blobferry_jobs_{name}", "blobferry_jobs")
    index_waiting(OLD_WAITING)
    op.drop_column("blobferry_path_locks", "is_tree")
    op.drop_column("blobferry_attempts", "remark")
    op.drop_column("blobferry_jobs", "waits_for")

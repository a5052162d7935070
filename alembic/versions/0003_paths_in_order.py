"""Jobs wait for each other's paths; the history of attempts has remarks."""

import sqlalchemy as sa
from alembic import op

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


def only(condition: str) -> dict[str, sa.TextClause]:
    """A partial index, on both databases."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def index_waiting(condition: str) -> None:
    """Recreate the caretaker's indexes. They hold waiting jobs only, so that is quick."""
    for name, columns in OF_WAITING.items():
        op.drop_index(f"ix_blobferry_jobs_{name}", "blobferry_jobs")
        op.create_index(f"ix_blobferry_jobs_{name}", "blobferry_jobs", columns, **only(condition))


def upgrade() -> None:
    """Add columns and indexes; the columns are nullable or have a default, as old workers need."""
    op.add_column("blobferry_jobs", sa.Column("waits_for", sa.String(155), nullable=True))
    op.add_column("blobferry_attempts", sa.Column("remark", sa.Text(), nullable=True))
    op.add_column("blobferry_path_locks", sa.Column("is_tree", sa.Boolean(), server_default=sa.false(), nullable=False))
    index_waiting(WAITING)
    op.create_index("ix_blobferry_jobs_waits_for", "blobferry_jobs", ["waits_for"], **only("waits_for IS NOT NULL"))
    op.create_index("ix_blobferry_jobs_path", "blobferry_jobs", ["path", "seq"], **only(UNFINISHED))
    moved = only(f"operation = 'move' AND {UNFINISHED}")
    op.create_index("ix_blobferry_jobs_source", "blobferry_jobs", ["source", "seq"], **moved)


def downgrade() -> None:
    """Drop the columns and indexes."""
    for name in ("source", "path", "waits_for"):
        op.drop_index(f"ix_blobferry_jobs_{name}", "blobferry_jobs")
    index_waiting(OLD_WAITING)
    op.drop_column("blobferry_path_locks", "is_tree")
    op.drop_column("blobferry_attempts", "remark")
    op.drop_column("blobferry_jobs", "waits_for")

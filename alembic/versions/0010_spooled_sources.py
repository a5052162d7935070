"""Sources that are removed after their job: spooled uploads by name, and the spool directories that are swept."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql import clock
from blobferry.sql.live_indexes import create_live_index, drop_live_index

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels = None
depends_on = None

JOBS = "blobferry_jobs"
REMOVING = "CASE WHEN removes_source THEN state ELSE '' END = 'succeeded'"


def upgrade() -> None:
    """Add columns, indexes and the table; workers of the previous version need not know them. Safe to repeat."""
    inspector = sa.inspect(op.get_bind())
    columns = {column["name"] for column in inspector.get_columns(JOBS)}
    if "spooled" not in columns:
        op.add_column(JOBS, sa.Column("spooled", sa.String(128), nullable=True))
    if "removes_source" not in columns:
        op.add_column(JOBS, sa.Column("removes_source", sa.Boolean(), server_default=sa.false(), nullable=False))
    if not inspector.has_table("blobferry_spools"):
        op.create_table(
            "blobferry_spools",
            sa.Column("id", sa.String(64), nullable=False),
            sa.Column("claimed_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
            sa.PrimaryKeyConstraint("id", name="pk_blobferry_spools"),
        )
    create_live_index(f"ix_{JOBS}_spooled", JOBS, ["spooled"], where="spooled IS NOT NULL")
    create_live_index(f"ix_{JOBS}_removing", JOBS, ["seq"], where=REMOVING)


def downgrade() -> None:
    """Drop all of it. What lies in spool directories is no longer swept."""
    for name in ("removing", "spooled"):
        drop_live_index(f"ix_{JOBS}_{name}", JOBS)
    op.drop_table("blobferry_spools")
    op.drop_column(JOBS, "removes_source")
    op.drop_column(JOBS, "spooled")

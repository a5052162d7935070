"""What is told at the end of jobs: deliveries, a feed of ended jobs, and a view for apps."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql.live_indexes import create_live_index, drop_live_index
from blobferry.sql.to_0009 import DROP_STATUS_VIEW, TO_0009

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels = None
depends_on = None

JOBS = "blobferry_jobs"


def upgrade() -> None:
    """Add columns, which are nullable or have a constant default, tables and a view: nothing is rewritten."""
    bind = op.get_bind()
    # The index comes last and ends the transaction, so a migration that was cut off there has done the rest.
    if "ended_in" not in {column["name"] for column in sa.inspect(bind).get_columns(JOBS)}:
        for statement in TO_0009[bind.dialect.name]:
            bind.exec_driver_sql(statement)
    create_live_index(f"ix_{JOBS}_ended", JOBS, ["ended_in", "seq"], where="ended_in IS NOT NULL")


def downgrade() -> None:
    """Drop all of it. What was not delivered yet is lost."""
    drop_live_index(f"ix_{JOBS}_ended", JOBS)
    op.execute(DROP_STATUS_VIEW)
    op.drop_table("blobferry_listeners")
    op.drop_table("blobferry_deliveries")
    for column in ("ended_in", "ends", "on_end"):
        op.drop_column(JOBS, column)

"""Jobs under a path are found by an index, those that have ended too."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql.live_indexes import create_live_index, drop_live_index

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels = None
depends_on = None

JOBS = "blobferry_jobs"
INDEX = f"ix_{JOBS}_any_path"


def upgrade() -> None:
    """Create the index, while jobs come and go. Safe to repeat."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    by_prefix = sa.text("path text_pattern_ops") if is_postgresql else "path"
    create_live_index(INDEX, JOBS, [by_prefix, "seq"])


def downgrade() -> None:
    """Drop it: listings under a path read one job after another again."""
    drop_live_index(INDEX, JOBS)

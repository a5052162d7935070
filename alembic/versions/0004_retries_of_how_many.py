"""The row of a job holds ``max_attempts``, so that clients can show it; so far only the worker's settings did."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is nullable, so that workers of the previous version still work."""
    op.add_column("blobferry_jobs", sa.Column("max_attempts", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("blobferry_jobs", "max_attempts")

"""A job knows how many runs without progress end it: only the worker's settings did."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is nullable, so that workers of the last version go on working."""
    op.add_column("blobferry_jobs", sa.Column("max_attempts", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("blobferry_jobs", "max_attempts")

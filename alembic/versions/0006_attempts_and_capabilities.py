"""Requests by verb in the history of a job, and a table of what stores were seen to lack."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from blobferry.sql import clock

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Add the column, which is nullable, and the table: workers of the previous version still work."""
    op.add_column("blobferry_attempts", sa.Column("sent", _JSON, nullable=True))
    op.create_table(
        "blobferry_capabilities",
        sa.Column("store", sa.String(512), nullable=False),
        sa.Column("capability", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("seen_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.PrimaryKeyConstraint("store", "capability", name="pk_blobferry_capabilities"),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_table("blobferry_capabilities")
    op.drop_column("blobferry_attempts", "sent")

"""The workers that are alive, and what each of them was seen to lack."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql import clock

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables: workers of the previous version need not know them."""
    op.create_table(
        "blobferry_workers",
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), server_default="", nullable=False),
        sa.Column("alive_until", clock.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("worker", name="pk_blobferry_workers"),
    )
    op.create_table(
        "blobferry_lacks",
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("need", sa.String(512), nullable=False),
        sa.Column("name", sa.String(255), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("times", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("met_at", clock.UtcDateTime(timezone=True), server_default=clock.db_now(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "need", name="pk_blobferry_lacks"),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_table("blobferry_lacks")
    op.drop_table("blobferry_workers")

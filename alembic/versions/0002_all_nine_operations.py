"""Columns for all nine operations: files as destinations, the state of a delete, prefixes copied by the store."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql import clock

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns; each is nullable or has a default, so that workers of the previous version still work."""
    op.add_column("blobferry_jobs", sa.Column("dest", sa.Text(), nullable=True))
    op.add_column("blobferry_jobs", sa.Column("cutoff", clock.UtcDateTime(timezone=True), nullable=True))
    op.add_column("blobferry_jobs", sa.Column("deleted_any", sa.Boolean(), server_default=sa.false(), nullable=False))
    for name in ("head", "head_parts"):
        op.add_column("blobferry_uploads", sa.Column(name, BIG, server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    """Drop the columns."""
    for name in ("head_parts", "head"):
        op.drop_column("blobferry_uploads", name)
    for name in ("deleted_any", "cutoff", "dest"):
        op.drop_column("blobferry_jobs", name)

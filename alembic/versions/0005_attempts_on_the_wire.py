"""The history of a job holds how many requests each attempt has sent, by verb."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Add the column; it is nullable, so that workers of the previous version still work."""
    op.add_column("blobferry_attempts", sa.Column("sent", _JSON, nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("blobferry_attempts", "sent")

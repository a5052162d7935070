"""Webhooks among the deliveries: where each goes, and how its last try ended."""

import sqlalchemy as sa
from alembic import op

from blobferry.sql.live_indexes import create_live_index, drop_live_index
from blobferry.sql.to_0011 import DELIVERY_INDEXES, TO_0011

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels = None
depends_on = None

DELIVERIES = "blobferry_deliveries"
COLUMNS = ("url", "endpoint", "host", "secret", "resent_at", "tried_at", "status", "error")


def upgrade() -> None:
    """Add nullable columns, and indexes; workers of the previous version need not know them. Safe to repeat."""
    bind = op.get_bind()
    # The indexes come last and end the transaction, so a migration that was cut off there has done the rest.
    if "url" not in {column["name"] for column in sa.inspect(bind).get_columns(DELIVERIES)}:
        for statement in TO_0011[bind.dialect.name]:
            bind.exec_driver_sql(statement)
    for name, (column, where) in DELIVERY_INDEXES.items():
        create_live_index(f"ix_{DELIVERIES}_{name}", DELIVERIES, [column], where=where)


def downgrade() -> None:
    """Drop all of it. Webhooks that were not delivered yet are lost, as no earlier worker can send them."""
    for name in DELIVERY_INDEXES:
        drop_live_index(f"ix_{DELIVERIES}_{name}", DELIVERIES)
    op.execute("DELETE FROM blobferry_deliveries WHERE kind = 'webhook'")
    for column in COLUMNS:
        op.drop_column(DELIVERIES, column)

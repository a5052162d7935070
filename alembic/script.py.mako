"""${message}

Safe on a running system: expand first (nullable columns, or with a server default), contract in a later release.
An index on a table with rows is made, replaced and dropped by models.live_indexes, so that nobody waits for it.
"""

import sqlalchemy as sa
from alembic import op

from blobferry.sql import clock
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}

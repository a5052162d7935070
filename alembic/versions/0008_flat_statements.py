"""Statements that cost the same at a million rows: other indexes, room for updates in place, contents apart."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from alembic import op

from blobferry.sql.live_indexes import create_live_index, drop_live_index, replace_live_index

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels = None
depends_on = None

JOBS, UPLOADS, LOCKS = "blobferry_jobs", "blobferry_uploads", "blobferry_path_locks"

WAITING = "worker IS NULL AND waits_for IS NULL AND state IN ('queued', 'retrying', 'verifying')"
DUE = f"run_at IS NULL AND {WAITING}"
UNFINISHED = "state IN ('paused', 'queued', 'retrying', 'running', 'verifying')"
REQUESTED = (
    "worker IS NULL AND (cancel_requested AND state IN ('paused', 'queued', 'retrying', 'verifying')"
    " OR pause_requested AND state IN ('queued', 'retrying', 'verifying'))"
)
DATED = "deadline IS NOT NULL AND worker IS NULL AND state IN ('paused', 'queued', 'retrying', 'verifying')"
OLD_WAITING = "lease_expires_at IS NULL AND waits_for IS NULL AND state IN ('queued', 'retrying', 'verifying')"

Columns = Sequence[str | sa.TextClause]
BEST: Columns = [sa.text("priority DESC"), "seq"]
#: Indexes with another condition than before, by name: columns, condition, old condition.
CHANGED: Mapping[str, tuple[Columns, str, str | None]] = {
    "best": (BEST, DUE, OLD_WAITING),
    "oldest": (["seq"], DUE, OLD_WAITING),
    "published_at": (["published_at"], f"published_at IS NOT NULL AND {DUE}", OLD_WAITING),
    "run_at": (["run_at"], f"run_at IS NOT NULL AND {WAITING}", OLD_WAITING),
    "deadline": (["deadline"], DATED, "cancel_requested OR deadline IS NOT NULL"),
    "finished_at": (["finished_at"], "finished_at IS NOT NULL", None),
}
#: Indexes of texts that are also searched by prefix, with their conditions.
SEARCHED = {
    "path": ("path", UNFINISHED),
    "source": ("source", f"operation = 'move' AND {UNFINISHED}"),
    "copied": ("source", f"substr(source, 1, 7) = 'blob://' AND {UNFINISHED}"),
}
BY_PREFIX = {"path": sa.text("path text_pattern_ops"), "source": sa.text("source text_pattern_ops")}
NEW: Mapping[str, tuple[Sequence[str], str | None]] = {
    "worker": (["worker"], "worker IS NOT NULL"),
    "requested": (["seq"], REQUESTED),
    "created_at": (["created_at"], None),
    **{
        state: (["seq"], f"state = '{state}'")
        for state in ("queued", "running", "verifying", "retrying", "paused", "succeeded", "failed", "cancelled")
    },
}
#: Room in each page, in percent of what rows fill, so that an update finds place beside the old version.
FILL_FACTORS = {JOBS: 80, UPLOADS: 80, "blobferry_attempts": 80}
#: Dead rows, as a part of all rows, at which autovacuum begins. Its default of 0.2 is 200,000 of a million.
VACUUM_AT = {JOBS: 0.02, UPLOADS: 0.05, "blobferry_attempts": 0.05, "blobferry_parts": 0.05, LOCKS: 0.0}


def upgrade() -> None:
    """Replace the indexes while the tables are in use, and add the column."""
    for name, (columns, condition, _) in CHANGED.items():
        replace_live_index(f"ix_{JOBS}_{name}", JOBS, columns, where=condition)
    for name, (column, condition) in SEARCHED.items():
        replace_live_index(f"ix_{JOBS}_{name}", JOBS, [searched(column), "seq"], where=condition)
    for name, (columns, condition) in NEW.items():
        create_live_index(f"ix_{JOBS}_{name}", JOBS, columns, where=condition)
    drop_live_index(f"ix_{JOBS}_lease_expires_at", JOBS)
    live = "state IN ('aborting', 'completing', 'open', 'opening')"
    create_live_index(f"ix_{UPLOADS}_live", UPLOADS, ["id"], where=live)
    create_live_index(f"ix_{UPLOADS}_aborting", UPLOADS, ["updated_at"], where="state = 'aborting'")
    drop_live_index(f"ix_{UPLOADS}_state", UPLOADS)
    create_live_index(f"ix_{LOCKS}_path", LOCKS, [searched("path")])
    if is_postgresql():
        for table, percent in FILL_FACTORS.items():
            set_option(table, "fillfactor", percent)
        for table, part in VACUUM_AT.items():
            set_option(table, "autovacuum_vacuum_scale_factor", part)
            set_option(table, "autovacuum_vacuum_threshold", 1000)
            set_option(table, "autovacuum_analyze_scale_factor", max(part, 0.02))
    if "contents" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(JOBS)}:
        op.add_column(JOBS, sa.Column("contents", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Undo all of it. Jobs whose contents are in the column must have ended: they cannot be sent without it."""
    op.drop_column(JOBS, "contents")
    if is_postgresql():
        for table in FILL_FACTORS:
            reset_option(table, "fillfactor")
        for table in VACUUM_AT:
            for name in ("vacuum_scale_factor", "vacuum_threshold", "analyze_scale_factor"):
                reset_option(table, f"autovacuum_{name}")
    drop_live_index(f"ix_{LOCKS}_path", LOCKS)
    create_live_index(f"ix_{UPLOADS}_state", UPLOADS, ["state"])
    for name in ("aborting", "live"):
        drop_live_index(f"ix_{UPLOADS}_{name}", UPLOADS)
    create_live_index(f"ix_{JOBS}_lease_expires_at", JOBS, ["lease_expires_at"])
    for name in NEW:
        drop_live_index(f"ix_{JOBS}_{name}", JOBS)
    for name, (column, condition) in SEARCHED.items():
        replace_live_index(f"ix_{JOBS}_{name}", JOBS, [column, "seq"], where=condition)
    for name, (columns, _, condition) in CHANGED.items():
        replace_live_index(f"ix_{JOBS}_{name}", JOBS, columns, where=condition)


def is_postgresql() -> bool:
    """Whether it is PostgreSQL that is migrated."""
    return op.get_bind().dialect.name == "postgresql"


def searched(column: str) -> str | sa.TextClause:
    """The column, in an order in which PostgreSQL finds all texts with a prefix, whatever the locale."""
    return BY_PREFIX[column] if is_postgresql() else column


def set_option(table: str, name: str, value: float) -> None:
    """Set a storage parameter; readers and writers of the table do not wait."""
    words = {"table": table, "name": name, "value": value}
    op.execute(sa.DDL("ALTER TABLE %(table)s SET (%(name)s = %(value)s)", context=words))  # type: ignore[no-untyped-call]


def reset_option(table: str, name: str) -> None:
    """Give a storage parameter its default again."""
    words = {"table": table, "name": name}
    op.execute(sa.DDL("ALTER TABLE %(table)s RESET (%(name)s)", context=words))  # type: ignore[no-untyped-call]

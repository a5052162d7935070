"""Indexes on tables in use, for migrations: on PostgreSQL nobody waits while one is made, replaced or dropped.

Each of these ends the migration's transaction and begins another, since CONCURRENTLY needs to be outside of any. So a
migration that uses them may be cut off in its middle: it must be safe to repeat (``if_not_exists``), as these are.
"""

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import DDL, TextClause, text


def create_live_index(
    name: str, table: str, columns: Sequence[str | TextClause], *, where: str | None = None, unique: bool = False
) -> None:
    """Create the index anew, also one that a broken-off CREATE INDEX CONCURRENTLY has left invalid.

    Args:
        name: of the index.
        table: its table.
        columns: names, or expressions as SQL.
        where: the condition of a partial index, as SQL.
        unique: whether the index is unique.
    """
    drop_live_index(name, table)
    _create(name, table, columns, where=where, unique=unique)


def replace_live_index(
    name: str, table: str, columns: Sequence[str | TextClause], *, where: str | None = None, unique: bool = False
) -> None:
    """Give an index another definition. Queries have the old one until the new one is complete.

    The arguments are those of :func:`create_live_index`.
    """
    if not _is_postgresql():
        create_live_index(name, table, columns, where=where, unique=unique)
        return
    create_live_index(f"{name}_new", table, columns, where=where, unique=unique)
    drop_live_index(name, table)
    names = {"new": f"{name}_new", "name": name}
    op.execute(DDL("ALTER INDEX %(new)s RENAME TO %(name)s", context=names))  # type: ignore[no-untyped-call]


def drop_live_index(name: str, table: str) -> None:
    """Drop the index, if it is there."""
    if not _is_postgresql():
        op.drop_index(name, table, if_exists=True)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)


def _create(name: str, table: str, columns: Sequence[str | TextClause], *, where: str | None, unique: bool) -> None:
    options: dict[str, Any] = {"unique": unique}
    if where is not None:
        options.update(postgresql_where=text(where), sqlite_where=text(where))
    if not _is_postgresql():
        op.create_index(name, table, columns, **options)
        return
    with op.get_context().autocommit_block():
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"

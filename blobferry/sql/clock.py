"""Times in the database: aware, in UTC, by the database's own clock, on PostgreSQL and SQLite."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Float, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases; SQLite stores sortable text with microseconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Convert to UTC. Raises ValueError for a naive time, which is ambiguous."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time needs a zone: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Add the zone, which SQLite does not store."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):
    """The database's clock plus ``seconds``. Unlike ``now()`` it advances within a transaction."""

    type = UtcDateTime()
    inherit_cache = True  # the seconds are a bound value, so statements are cached

    def __init__(self, seconds: float | ColumnElement[float] = 0.0) -> None:
        if isinstance(seconds, ColumnElement):  # a parameter of a statement that is made once
            super().__init__(seconds)
        else:
            super().__init__(*([literal(float(seconds), Float)] if seconds else []))


@compiles(db_now)
def _postgresql_now(element: db_now, compiler: Any, **kwargs: Any) -> str:
    for seconds in element.clauses:
        return f"(clock_timestamp() + make_interval(secs => {compiler.process(seconds, **kwargs)}))"
    return "clock_timestamp()"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: Any, **kwargs: Any) -> str:
    # SQLite's clock has milliseconds; the zeros let its text compare with bound values in microseconds.
    # post_process_text doubles "%" where a driver marks parameters by it: Django's.
    now = compiler.post_process_text("strftime('%Y-%m-%d %H:%M:%f000', 'now'")
    for seconds in element.clauses:
        later = compiler.post_process_text("printf('%+f seconds', ")
        return f"({now}, {later}{compiler.process(seconds, **kwargs)})))"
    return f"({now}))"

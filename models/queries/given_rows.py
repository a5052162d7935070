"""Rows in one bound value: one statement brings different values to many rows, and its text does not depend on them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, String, bindparam, cast, column, func, type_coerce
from sqlalchemy.orm import Session

from blobferry.sql.clock import UtcDateTime
from blobferry.sql.tables import jobs

GIVEN: Final = "given"  #: the name of the bound value
_JSON: Final = jobs.c.result.type


class GivenRows:
    """The rows as a table of a statement. They are bound to it as ``GIVEN``: a list of mappings with JSON values."""

    def __init__(self, backend: str) -> None:
        """``backend``: the name of SQLAlchemy's dialect."""
        self._is_sqlite = backend == "sqlite"
        rows = bindparam(GIVEN, type_=_JSON)
        elements = func.json_each(rows) if self._is_sqlite else func.jsonb_array_elements(rows)
        self._value = elements.table_valued(column("value", _JSON), name=GIVEN).c.value

    def text(self, name: str) -> ColumnElement[str]:
        """A field that is a string, or null."""
        return type_coerce(self._value[name].as_string(), String)

    def whole(self, name: str) -> ColumnElement[int]:
        """A field that is a whole number, or null."""
        return cast(self._value[name].as_string(), BigInteger)

    def json(self, name: str) -> ColumnElement[Any]:
        """A field that is an object or a list."""
        return type_coerce(self._value[name], _JSON)

    def time(self, name: str) -> ColumnElement[datetime]:
        """A field that :func:`time_text` has made, or null."""
        text = self.text(name)
        return type_coerce(text, UtcDateTime) if self._is_sqlite else cast(text.concat("+00"), UtcDateTime)


def time_text(time: datetime | None) -> str | None:
    """A time as :meth:`GivenRows.time` reads it: in UTC, without a zone, as SQLite stores it."""
    return None if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def backend_of(session: Session) -> str:
    """The name of SQLAlchemy's dialect of this session."""
    return session.get_bind().dialect.name


def bound(rows: Iterable[Mapping[str, Any]], **others: Any) -> dict[str, Any]:
    """The parameters of a statement that has these rows."""
    return {GIVEN: list(rows), **others}

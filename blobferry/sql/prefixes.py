"""A search for all texts with a prefix, that an index can answer on PostgreSQL and SQLite."""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.expression import FunctionElement


class begins_with(FunctionElement[bool]):
    """Whether the column's text begins with ``prefix``, byte by byte, in upper and lower case as given.

    On PostgreSQL an index needs the operators ``text_pattern_ops``, since the order of its texts depends on a locale.
    """

    type = Boolean()
    inherit_cache = True  # the bounds are bound values, so statements are cached

    def __init__(self, column: ColumnElement[Any] | InstrumentedAttribute[Any], prefix: str) -> None:
        """``prefix`` is not empty; the slash at the end of a directory is usual."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        super().__init__(column, literal(prefix), literal(end))

    def self_group(self, against: Any = None) -> Any:
        """Itself: compared with 1, as SQLite's booleans are otherwise, it would use no index."""
        return self


@compiles(begins_with)
def _postgresql_range(element: begins_with, compiler: Any, **kwargs: Any) -> str:
    column, begin, end = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"({column} ~>=~ {begin} AND {column} ~<~ {end})"


@compiles(begins_with, "sqlite")
def _sqlite_range(element: begins_with, compiler: Any, **kwargs: Any) -> str:
    column, begin, end = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"({column} >= {begin} AND {column} < {end})"

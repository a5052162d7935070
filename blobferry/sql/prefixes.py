"""A search for all texts with a prefix, that an index can answer on PostgreSQL and SQLite."""

from typing import Any

from sqlalchemy import BindParameter, Boolean, ColumnElement, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.expression import FunctionElement

Searched = ColumnElement[Any] | InstrumentedAttribute[Any]


def begins_with(column: Searched, prefix: str) -> "lies_within":
    """Whether the column's text begins with ``prefix``, in upper and lower case as given. It must not be empty."""
    return lies_within(column, literal(prefix), literal(prefix_end(prefix)))


def prefix_end(prefix: str) -> str:
    """The first text behind all those that begin with ``prefix``, which is not empty."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class lies_within(FunctionElement[bool]):
    """Whether the column's text is ``begin`` or comes behind it, and before ``end``, byte by byte.

    On PostgreSQL an index needs the operators ``text_pattern_ops``, since the order of its texts depends on a locale.
    """

    type = Boolean()
    inherit_cache = True  # the bounds are bound values, so statements are cached

    def __init__(self, column: Searched, begin: BindParameter[str], end: BindParameter[str]) -> None:
        super().__init__(column, begin, end)

    def self_group(self, against: Any = None) -> Any:
        """Itself: compared with 1, as SQLite's booleans are otherwise, it would use no index."""
        return self


@compiles(lies_within)
def _postgresql_range(element: lies_within, compiler: Any, **kwargs: Any) -> str:
    column, begin, end = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"({column} ~>=~ {begin} AND {column} ~<~ {end})"


@compiles(lies_within, "sqlite")
def _sqlite_range(element: lies_within, compiler: Any, **kwargs: Any) -> str:
    column, begin, end = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"({column} >= {begin} AND {column} < {end})"

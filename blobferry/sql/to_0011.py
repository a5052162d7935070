"""The statements that lead the tables from revision 0010 to 0011, frozen as they were: webhooks."""

from collections.abc import Mapping, Sequence
from typing import Final

_TABLE: Final = "blobferry_deliveries"
_COLUMNS: Final = (
    "url TEXT",
    "endpoint TEXT",
    "host VARCHAR(255)",
    "secret VARCHAR(64)",
    "resent_at {time}",
    "tried_at {time}",
    "status INTEGER",
    "error TEXT",
)
_TIME: Final = {"postgresql": "TIMESTAMP WITH TIME ZONE", "sqlite": "DATETIME"}
#: By name: the column, and the condition. Apart, since Alembic makes them while the table is in use.
DELIVERY_INDEXES: Final = {
    "waiting": ("due_at", "state = 'waiting'"),
    "failed": ("id", "state IN ('given_up', 'gone')"),
}
#: By the name of SQLAlchemy's dialect: the columns.
TO_0011: Final[Mapping[str, Sequence[str]]] = {
    name: tuple(f"ALTER TABLE {_TABLE} ADD COLUMN {column.format(time=time)}" for column in _COLUMNS)
    for name, time in _TIME.items()
}
DELIVERY_INDEXES_MADE: Final = tuple(
    f"CREATE INDEX ix_{_TABLE}_{name} ON {_TABLE} ({column}) WHERE {where}"
    for name, (column, where) in DELIVERY_INDEXES.items()
)

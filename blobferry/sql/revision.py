"""The revision of the tables, and the SQL that makes it: for whoever migrates without Alembic.

``python -m worker migrate`` runs Alembic's scripts. Django's migrations run what this module returns, and record the
same revision in the same table, so each of the two sees what the other has done. A test compares what both make.

A script of Alembic's that comes after ``FIRST`` has its statements in ``UPGRADES``, and runs them from there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ClauseElement, Column, MetaData, String, Table, delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable, ExecutableDDLElement

from blobferry.sql import outbox_tables, tables, worker_tables
from blobferry.sql.to_0009 import DROP_STATUS_VIEW, ENDED_INDEX, STATUS_VIEW, TO_0009
from blobferry.sql.to_0011 import DELIVERY_INDEXES_MADE, TO_0011

Upgrades = Mapping[str, Mapping[str, Sequence[str]]]


def _text(statement: ClauseElement, dialect_name: str) -> str:
    dialect: Any = (sqlite if dialect_name == "sqlite" else postgresql).dialect()
    # The statements that define tables have no parameters, and take no such option.
    options: dict[str, Any] = (
        {} if isinstance(statement, ExecutableDDLElement) else {"compile_kwargs": {"literal_binds": True}}
    )
    return str(statement.compile(dialect=dialect, **options)).strip()


def _created(table: Table, *names: str, dialect_name: str) -> list[str]:
    """The statements that make these indexes of the table."""
    wanted = {f"ix_{table.name}_{name}" for name in names}
    found = sorted((index for index in table.indexes if index.name in wanted), key=lambda index: str(index.name))
    return [_text(CreateIndex(index), dialect_name) for index in found]


FIRST: Final = "0008"  #: the oldest revision that can be made, or gone on from, without Alembic
#: By revision, in order, and by the name of SQLAlchemy's dialect: the statements that lead to it from the one before.
UPGRADES: Final[Upgrades] = {
    "0009": {name: (*steps, ENDED_INDEX) for name, steps in TO_0009.items()},
    "0010": {
        "sqlite": [
            "ALTER TABLE blobferry_jobs ADD COLUMN spooled VARCHAR(128)",
            "ALTER TABLE blobferry_jobs ADD COLUMN removes_source BOOLEAN DEFAULT 0 NOT NULL",
            *_created(tables.jobs, "spooled", "removing", dialect_name="sqlite"),
            _text(CreateTable(worker_tables.spools), "sqlite"),
        ],
        "postgresql": [
            "ALTER TABLE blobferry_jobs ADD COLUMN spooled VARCHAR(128)",
            "ALTER TABLE blobferry_jobs ADD COLUMN removes_source BOOLEAN DEFAULT false NOT NULL",
            *_created(tables.jobs, "spooled", "removing", dialect_name="postgresql"),
            _text(CreateTable(worker_tables.spools), "postgresql"),
        ],
    },
    "0011": {name: (*steps, *DELIVERY_INDEXES_MADE) for name, steps in TO_0011.items()},
    "0012": {name: _created(tables.jobs, "any_path", dialect_name=name) for name in ("sqlite", "postgresql")},
}
HEAD: Final = max((FIRST, *UPGRADES))  #: what ``blobferry.sql.tables`` says

MIGRATION_LOCK: Final = 0x626C6F62  #: of PostgreSQL's advisory locks, an arbitrary constant; "blob"

#: All tables but the next one, in the order in which they can be made.
ALL_TABLES: Final = worker_tables.workers.metadata.sorted_tables
assert outbox_tables.deliveries in ALL_TABLES, "it is imported"
#: As Alembic makes it.
_versions: Final = Table(
    tables.VERSION_TABLE,
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)


def creation(dialect_name: str) -> list[str]:
    """The statements that make all tables in a database without any, and record ``HEAD``. None has parameters."""
    made: list[ClauseElement] = []
    for table in (*ALL_TABLES, _versions):
        made += [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))]
    record = insert(_versions).values(version_num=HEAD)
    return [*(_text(statement, dialect_name) for statement in made), STATUS_VIEW, _text(record, dialect_name)]


def upgrades(recorded: str, wanted: str, dialect_name: str, known: Upgrades = UPGRADES) -> list[str]:
    """The statements that lead from the recorded revision to the wanted one, which they record; none if it is later."""
    steps = [revision for revision in known if recorded < revision <= wanted]
    found = [statement for revision in steps for statement in known[revision][dialect_name]]
    return [*found, _text(update(_versions).values(version_num=wanted), dialect_name)] if steps else []


def emptying(dialect_name: str) -> list[str]:
    """The statements that delete all rows."""
    return [_text(delete(table), dialect_name) for table in reversed(ALL_TABLES)]


def dropping(dialect_name: str) -> list[str]:
    """The statements that drop all tables."""
    return [DROP_STATUS_VIEW, *(_text(DropTable(table), dialect_name) for table in (_versions, *reversed(ALL_TABLES)))]

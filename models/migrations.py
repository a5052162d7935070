"""Runs Alembic's migrations, and compares them with a database. Import it late: Alembic takes ten MiB."""

from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, ScalarResult, column, inspect, select, table

from blobferry.sql.tables import VERSION_TABLE

APPS_TABLE: Final = "alembic_version"  #: Alembic's own default
_HERE: Final = Path(__file__).parent
#: In a wheel inside of this package, in a checkout beside it, where a developer looks for it.
SCRIPTS: Final = next(folder for folder in (_HERE / "alembic", _HERE.parent / "alembic") if folder.is_dir())


def upgrade(revision: str) -> None:
    """Bring the configured database to ``revision``; "head" is the newest. Safe to repeat, also concurrently."""
    command.upgrade(_config(), revision)


def known_revisions() -> list[str]:
    """The revisions that this code knows, newest first. The newest is the one that it works with."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]


def revision_of(connection: Connection) -> str | None:
    """The newest of our revisions that the database says it is at; None if it names none.

    It says so in a table of our own, or in Alembic's usual one where the app's own Alembic runs our migrations.
    """
    tables = set(inspect(connection).get_table_names())
    named = [str(found) for name in (VERSION_TABLE, APPS_TABLE) if name in tables for found in _rows(connection, name)]
    known = known_revisions()
    ours = [revision for revision in known if revision in named]
    return ours[0] if ours else next(iter(named), None) if VERSION_TABLE in tables else None


def _rows(connection: Connection, version_table: str) -> ScalarResult[Any]:
    return connection.scalars(select(column("version_num")).select_from(table(version_table)))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config

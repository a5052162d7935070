"""The tables of jobs in a Django project's databases: made by its migrations, and recorded as Alembic does."""

import time
from typing import Any, Final

from django.db import OperationalError, connections, router, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

from blobferry.errors import UnreachableError
from blobferry.sql import revision
from blobferry.sql.tables import VERSION_TABLE

APP: Final = "blobferry"
PATIENCE: Final = 60.0  #: seconds to wait for another migration
POLL: Final = 0.2
TABLE_TIMEOUT: Final = "200ms"  #: for which others wait behind an upgrade that waits for a table
_LOCK_NOT_AVAILABLE: Final = "55P03"  # source: PostgreSQL, "Error Codes"


class TablesError(Exception):
    """The tables are at a revision from which this version cannot go on."""


def recorded_revision(connection: Any) -> str | None:
    """The revision of the tables; None without tables. ``connection`` is Django's, of any supported database."""
    with connection.cursor() as cursor:
        if VERSION_TABLE not in connection.introspection.table_names(cursor):
            return None
        cursor.execute("SELECT version_num FROM blobferry_alembic_version")
        row = cursor.fetchone()
    return None if row is None else str(row[0])


class BringTo(Operation):
    """Bring the tables of jobs to a revision.

    Those that are missing are made as they are today, so that later operations find nothing to do. Those that
    ``python -m worker migrate`` has made are gone on from.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Nothing: no model is managed."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Make or upgrade the tables. Raises TablesError for those of an older version."""
        connection = schema_editor.connection
        if not router.allow_migrate(connection.alias, app_label):
            return
        _be_alone(connection)
        recorded = recorded_revision(connection)
        if recorded is not None and recorded < revision.FIRST:
            raise TablesError(
                f"the tables blobferry_… in {connection.alias!r} are at revision {recorded}: run `python -m worker "
                f"migrate` on that database first, which brings them to {revision.HEAD}"
            )
        if recorded is None:
            statements = revision.creation(connection.vendor)
        else:
            statements = revision.upgrades(recorded, self.wanted, connection.vendor)
            if statements and not schema_editor.collect_sql:
                _take_table(connection)
        for statement in statements:
            schema_editor.execute(statement, params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Drop the tables, jobs included, if it is the first revision that is undone; others leave them as they are."""
        if self.wanted == revision.FIRST and router.allow_migrate(schema_editor.connection.alias, app_label):
            for statement in revision.dropping(schema_editor.connection.vendor):
                schema_editor.execute(statement, params=None)

    def describe(self) -> str:
        """One line, for the output of migrate."""
        return f"Bring the tables of Blobferry to revision {self.wanted}"


def _be_alone(connection: Any) -> None:
    """Wait until no other migration of these tables runs. Raises UnreachableError after a minute."""
    if connection.vendor != "postgresql":  # SQLite lets one write at a time
        return
    ends_at = time.monotonic() + PATIENCE
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [revision.MIGRATION_LOCK])
            if cursor.fetchone()[0]:
                return
        if time.monotonic() > ends_at:
            raise UnreachableError(
                "database: another migration of the tables blobferry_… runs; repeat this when it ends"
            )
        time.sleep(POLL)


def _take_table(connection: Any) -> None:
    """Lock the table of jobs for the upgrade; give up soon and try again while a transaction of the app has used it.

    All others would wait behind a lock that is waited for. Raises UnreachableError after a minute.
    """
    if connection.vendor != "postgresql":  # on SQLite the migration is the writer already
        return
    ends_at = time.monotonic() + PATIENCE
    while True:
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [TABLE_TIMEOUT])
                cursor.execute("LOCK TABLE blobferry_jobs IN ACCESS EXCLUSIVE MODE")
                cursor.execute("SET LOCAL lock_timeout TO DEFAULT")
            return
        except OperationalError as error:
            code = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
            if code != _LOCK_NOT_AVAILABLE:
                raise
            if time.monotonic() > ends_at:
                raise UnreachableError(
                    f"database: a transaction has used blobferry_jobs for {PATIENCE:g} s: end it (see the view "
                    "pg_stat_activity), then repeat this"
                ) from error
        time.sleep(POLL)


def follow_project(*, using: str, sender: Any = None, **sent: Any) -> None:
    """After a migrate without migrations, as some tests run, make the tables; after a flush, empty them.

    Django itself does both, but for managed models only.
    """
    if not router.allow_migrate(using, APP):
        return
    connection = connections[using]
    is_flush = "plan" not in sent  # of the two commands that send this signal, migrate names its plan
    if is_flush:
        statements = revision.emptying(connection.vendor)
    elif APP in MigrationLoader(None, ignore_no_migrations=True).unmigrated_apps:
        statements = revision.creation(connection.vendor)
    else:
        return
    if is_flush is (recorded_revision(connection) is not None):
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

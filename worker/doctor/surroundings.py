"""What stands around a worker: its database, its broker, and the files that it may read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import select, table, text

from blobferry.messages.job_messages import client_app
from blobferry.sql.tables import VERSION_TABLE
from models import Database
from worker.doctor.findings import Finding
from worker.errors import UnreachableError
from worker.settings import Settings

ALEMBIC_INI: Final = Path(__file__).parent.parent.parent / "alembic.ini"
_MIGRATE: Final = "run `python -m worker migrate`"


def examine_database(database: Database) -> Iterator[Finding]:
    """Whether it answers, and has the tables that this code works with. Makes no file where there is none."""
    url = database.engine.url
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        yield Finding("database", "reachable", "broken", f"there is no file {url.database}: {_MIGRATE}")
        return
    what = "reachable"
    try:
        with database.begin() as session:
            session.execute(text("SELECT 1"))
        yield Finding("database", what, "ok", url.render_as_string(hide_password=True))
        what = "migrated"
        with database.begin() as session:
            found = session.scalar(select(text("version_num")).select_from(table(VERSION_TABLE)))
    except UnreachableError as error:
        yield Finding("database", what, "broken", str(error))
    else:
        yield _compared(found)


def examine_broker(settings: Settings) -> Iterator[Finding]:
    """Whether it answers."""
    connection = client_app(settings.broker_url.get_secret_value()).connection_for_write()
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        yield Finding("broker", "reachable", "ok", connection.as_uri())
    except Exception as error:  # whatever the broker's client raises
        yield Finding("broker", "reachable", "broken", f"{connection.as_uri()}: {error}")
    finally:
        connection.release()


def examine_encryption(settings: Settings) -> Iterator[Finding]:
    """Whether source URLs that hold a secret are kept encrypted. Bad keys are refused when the settings are read."""
    if settings.encryption_keys:
        yield Finding("encryption", "source URLs", "ok", f"{len(settings.encryption_keys)} keys, the first one seals")
    else:
        says = "there are no encryption_keys: a source URL with a password or a signature is kept in its row as it came"
        yield Finding("encryption", "source URLs", "missing", says)


def examine_file_roots(settings: Settings) -> Iterator[Finding]:
    """Whether they are directories that this user can look into."""
    for root in settings.sources.file_roots:
        try:
            with os.scandir(root) as entries:
                next(entries, None)
        except OSError as error:
            yield Finding(f"file root {root}", "readable", "broken", error.strerror or str(error))
        else:
            yield Finding(f"file root {root}", "readable", "ok")


def _compared(found: str | None) -> Finding:
    # Ten MiB that only this command needs.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory.from_config(Config(str(ALEMBIC_INI)))
    wanted = scripts.get_current_head()
    if found == wanted:
        return Finding("database", "migrated", "ok", f"revision {wanted}")
    known = {None, *(script.revision for script in scripts.walk_revisions())}
    mended = _MIGRATE if found in known else "update the worker, the database is newer"
    problem = f"it is at revision {found or 'none'}, this worker is made for {wanted}: {mended}"
    return Finding("database", "migrated", "broken", problem)

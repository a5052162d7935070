"""Examines what a worker needs besides storages: database, broker, encryption keys, file roots."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import text

from blobferry.messages.job_messages import client_app
from blobferry.messages.server_kind import refuse_unfit_server
from models import Database, queries
from models.migrations import known_revisions, revision_of
from worker.doctor.findings import Finding
from worker.errors import ConfigurationError, UnreachableError
from worker.settings import Settings

_MIGRATE: Final = "run `blobferry-worker migrate`"


def examine_database(database: Database) -> Iterator[Finding]:
    """Whether the database answers and is migrated. Creates no SQLite file."""
    url = database.engine.url
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        yield Finding("database", "reachable", "broken", f"file {url.database} does not exist: {_MIGRATE}")
        return
    what = "reachable"
    try:
        with database.begin() as session:
            session.execute(text("SELECT 1"))
        yield Finding("database", what, "ok", url.render_as_string(hide_password=True))
        what = "migrated"
        with database.begin() as session:
            found = revision_of(session.connection())
    except UnreachableError as error:
        yield Finding("database", what, "broken", str(error))
    else:
        compared = _compared(found)
        yield compared
        if compared.state == "ok":
            yield from _lacking_workers(database)


def _lacking_workers(database: Database) -> Iterator[Finding]:
    """The workers that leave jobs to others, and what they lack."""
    try:
        with database.begin() as session:
            found = queries.lacking_workers(session)
    except UnreachableError as error:
        yield Finding("database", "reachable", "broken", str(error))
        return
    for lack in found:
        says = f"takes no jobs that need it while others can, after {lack.times} failures in a row: {lack.reason}"
        yield Finding(f"worker {lack.name}", lack.need, "broken", says)


def examine_broker(settings: Settings) -> Iterator[Finding]:
    """Whether the broker answers, and is no cluster."""
    app = client_app(settings.broker_url.get_secret_value(), settings.broker_options)
    connection = app.connection_for_write()
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        refuse_unfit_server(app)
        yield Finding("broker", "reachable", "ok", connection.as_uri())
    except ConfigurationError as error:
        yield Finding("broker", "one server", "broken", error.problem)
    except Exception as error:  # each broker's client has errors of its own
        yield Finding("broker", "reachable", "broken", f"{connection.as_uri()}: {error}")
    finally:
        connection.release()


def examine_encryption(settings: Settings) -> Iterator[Finding]:
    """Whether source URLs with secrets are stored encrypted. Loading the settings has refused invalid keys."""
    if settings.encryption_keys:
        yield Finding(
            "encryption", "source URLs", "ok", f"{len(settings.encryption_keys)} keys, the first one encrypts"
        )
    else:
        says = "no encryption_keys are set: source URLs with passwords or signatures are stored in clear text"
        yield Finding("encryption", "source URLs", "missing", says)


def examine_certificates(name: str, settings: Settings) -> Iterator[Finding]:
    """Whether a storage checks with whom it talks."""
    storage = settings.storages[name]
    if storage.driver == "s3" and not storage.verify:
        says = "verify = false: whoever is on the way can read and change blobs; name the store's authority by ca_file"
        yield Finding(f"storage {name}", "certificate checked", "missing", says)


def examine_file_roots(settings: Settings) -> Iterator[Finding]:
    """Whether the file roots are directories that this user can read."""
    for root in settings.source_roots:
        try:
            with os.scandir(root) as entries:
                next(entries, None)
        except OSError as error:
            yield Finding(f"file root {root}", "readable", "broken", error.strerror or str(error))
        else:
            yield Finding(f"file root {root}", "readable", "ok")


def _compared(found: str | None) -> Finding:
    known = known_revisions()
    wanted = known[0]
    if found == wanted:
        return Finding("database", "migrated", "ok", f"revision {wanted}")
    remedy = _MIGRATE if found is None or found in known else "update the worker, the database is newer"
    problem = f"the database is at revision {found or 'none'}, this worker needs {wanted}: {remedy}"
    return Finding("database", "migrated", "broken", problem)

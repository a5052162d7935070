"""What ``manage.py blobferry_doctor`` finds out by trying: settings, tables, rights, broker, workers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.core.checks import WARNING, run_checks
from django.db import DatabaseError, connections, transaction
from sqlalchemy import select

from blobferry.django.configuration import FerrySettings
from blobferry.django.ferries import Ferry
from blobferry.django.joined_engine import joined_engine
from blobferry.django.system_checks import TAG, table_problem
from blobferry.errors import BlobferryError, ConfigurationError, UnreachableError
from blobferry.messages.broker_address import BrokerOptions
from blobferry.messages.job_messages import client_app
from blobferry.messages.server_kind import refuse_unfit_server
from blobferry.sql.clock import db_now
from blobferry.sql.worker_tables import workers

READ_TIMEOUT = 5.0  #: seconds for a worker to answer


class Symptom(NamedTuple):
    """One line of the report."""

    level: str  #: "ok", "warning" or "error"
    subject: str
    text: str


def examine_project(database: str | None = None) -> Iterator[Symptom]:
    """Try everything that a project needs for its jobs to run; what depends on a thing that fails is not tried.

    ``database``: an alias of DATABASES; that of BLOBFERRY unless given. Nothing is left behind.
    """
    wrong = False
    for message in run_checks(tags=[TAG]):
        wrong |= message.level > WARNING
        yield Symptom("error" if message.level > WARNING else "warning", "settings", message.msg)
    if wrong:
        return
    given = FerrySettings.of_project()
    alias = database or given.database
    in_database = list(_database(alias))
    yield from in_database
    if given.spool_dir:
        yield _spool(Path(given.spool_dir))
    yield from (in_broker := list(_broker(given)))
    if all(symptom.level == "ok" for symptom in in_database):
        yield from _workers(alias, asks=in_broker[0].level == "ok")


def _database(alias: str) -> Iterator[Symptom]:
    subject = f"database {alias}"
    try:
        problem, hint = table_problem(alias)
        if problem:
            yield Symptom("error", subject, f"{problem}: {hint}")
            return
        with transaction.atomic(using=alias):
            Ferry(alias).delete("/blobferry_doctor")
            transaction.set_rollback(True, using=alias)
    except (DatabaseError, BlobferryError) as error:
        yield Symptom("error", subject, str(error).strip())
        return
    yield Symptom("ok", subject, f"{connections[alias].vendor}; the tables are there, and a job can be written")


def _spool(directory: Path) -> Symptom:
    if not directory.is_dir():
        return Symptom("error", "spool", f"{directory} is no directory on this host; make it, or mount it there")
    if not os.access(directory, os.W_OK | os.X_OK):
        return Symptom("error", "spool", f"{directory} cannot be written to by this user")
    return Symptom("ok", "spool", f"{directory} can be written to; the workers need it under the same path")


def _broker(given: FerrySettings) -> Iterator[Symptom]:
    if not given.broker_url:
        yield Symptom("warning", "broker", "BLOBFERRY['BROKER_URL'] is not set")
        return
    with client_app(given.broker_url, BrokerOptions(**given.broker_options)) as app:
        try:
            with app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            refuse_unfit_server(app)
        except ConfigurationError as error:
            yield Symptom("error", "broker", str(error))
        except Exception as error:  # clients of brokers raise many types
            yield Symptom("error", "broker", f"does not answer ({type(error).__name__}): {error}")
        else:
            yield Symptom("ok", "broker", "answers")


def _workers(alias: str, *, asks: bool) -> Iterator[Symptom]:
    alive = select(workers.c.name).where(workers.c.alive_until > db_now()).order_by(workers.c.name)
    with joined_engine(alias).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        names = list(connection.scalars(alive))
    if not names:
        advice = "start `blobferry-worker run` with this database as its database_url"
        yield Symptom("warning", "workers", f"none is alive on this database, so no job runs: {advice}")
        return
    yield Symptom("ok", "workers", f"alive: {', '.join(names)}")
    if not asks:
        return
    try:
        Ferry(alias).list("/", limit=1, timeout=READ_TIMEOUT)
    except UnreachableError as error:
        yield Symptom("warning", "reads", str(error))
    except BlobferryError as error:  # it has answered
        yield Symptom("warning", "reads", f"a worker answers, but cannot list the storage 'default': {error}")
    else:
        yield Symptom("ok", "reads", "a worker has listed the storage 'default'")

"""What ``manage.py check`` says of BLOBFERRY and its databases."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections
from django.urls import NoReverseMatch, reverse
from sqlalchemy.engine import URL

from blobferry.client import Client
from blobferry.django.configuration import SETTING, FerrySettings, problems
from blobferry.django.ferries import Ferry
from blobferry.django.schema import recorded_revision
from blobferry.errors import ConfigurationError
from blobferry.sql.revision import HEAD

TAG: Final = "blobferry"
BACKEND: Final = "blobferry.django.storage.FerryStorage"
_OTHER: Final = "the variable BLOBFERRY_DATABASE_URL names another database than DATABASES[{alias!r}]"


@register(TAG)
def check_settings(**options: Any) -> list[CheckMessage]:
    """Whether the setting is one that a client can be made of. It connects to nothing."""
    wrong = [Error(str(problem), id="blobferry.E001") for problem in problems(getattr(settings, SETTING, {}))]
    return wrong or list(_project_problems(FerrySettings.of_project()))


def _project_problems(given: FerrySettings) -> Iterator[CheckMessage]:
    try:
        Ferry().close()
    except ConfigurationError as error:
        hint = "BLOBFERRY['DATABASE'] is an alias of DATABASES; other keys have the values of the worker's settings"
        yield Error(str(error), hint=hint, id="blobferry.E002")
        return
    if not given.broker_url:
        yield Warning(
            f"{SETTING}['BROKER_URL'] is not set: jobs begin when the workers' caretaker finds them, seconds later, "
            "and stat, list and get_content fail, url_for as well for what is not in STORAGES",
            hint="set it to the broker_url of the workers",
            id="blobferry.W001",
        )
    if elsewhere(given.database):
        yield Warning(
            _OTHER.format(alias=given.database),
            hint="clients made by Client.from_env(), and a worker started with it, do not see this project's jobs",
            id="blobferry.W002",
        )


@register(TAG)
def check_storages(**options: Any) -> list[CheckMessage]:
    """Whether the storages of the project that are ours have all that they need."""
    backends = [str(each.get("BACKEND")) for each in getattr(settings, "STORAGES", {}).values()]
    if BACKEND not in backends or any(True for _ in problems(getattr(settings, SETTING, {}))):
        return []
    found: list[CheckMessage] = []
    if not FerrySettings.of_project().spool_dir:
        hint = "set it to a directory that the workers see under the same path, as their spool_dir"
        found.append(
            Error(f"{SETTING}['SPOOL_DIR'] is not set: a FerryStorage cannot save", hint=hint, id="blobferry.E004")
        )
    try:
        reverse("blobferry:spooled", args=["token", "name"])
    except (NoReverseMatch, AttributeError):  # without ROOT_URLCONF there is no URL at all
        hint = 'add path("files/", include("blobferry.django.urls")) to the urlpatterns of ROOT_URLCONF'
        problem = "the URLs of blobferry.django are not included: files have none until they are in the store"
        found.append(Warning(problem, hint=hint, id="blobferry.W004"))
    return found


@register(Tags.database)
def check_tables(*, databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    """Whether the tables are there: for ``check --database`` and before a migrate, so it only warns."""
    if any(True for _ in problems(getattr(settings, SETTING, {}))):
        return []
    alias = FerrySettings.of_project().database
    if alias not in (databases or ()) or connections[alias].vendor not in ("postgresql", "sqlite"):
        return []
    problem, hint = table_problem(alias)
    return [Warning(problem, hint=hint, id="blobferry.W003")] if problem else []


def table_problem(alias: str) -> tuple[str, str]:
    """What is wrong with the tables in this database, and what to do; two empty texts if nothing is."""
    recorded = recorded_revision(connections[alias])
    if recorded is None:
        return f"the tables of Blobferry are not in DATABASES[{alias!r}]", f"`manage.py migrate --database {alias}`"
    if recorded == HEAD:
        return "", ""
    is_older = recorded < HEAD
    age, hint = ("older", f"`manage.py migrate --database {alias}`") if is_older else ("newer", "upgrade blobferry")
    where = f"the tables of Blobferry in DATABASES[{alias!r}]"
    return f"{where} are at revision {recorded}, which is {age} than this version's, {HEAD}", hint


def elsewhere(alias: str) -> bool:
    """Whether the environment names another database than that of the alias, as far as the two can be compared."""
    try:
        with Client.from_env() as client:
            named = client._engine.url
    except ConfigurationError:  # not set, or not for this process
        return False
    return not _is_same(named, connections[alias])


def _is_same(named: URL, connection: Any) -> bool:
    name = str(connection.settings_dict["NAME"])
    if named.get_backend_name() != connection.vendor:
        return False
    if connection.vendor == "sqlite":
        return Path(named.database or "").absolute() == Path(name).absolute()
    hosts = {str(named.host or named.query.get("host") or ""), str(connection.settings_dict["HOST"] or "")}
    return named.database == name and (len(hosts) == 1 or "" in hosts)

"""A Django project in this process, whose databases are those of the test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import django
import pytest
import redis
from django.conf import settings
from django.db import connections
from django.test import override_settings
from sqlalchemy import make_url

from blobferry.django import ferry
from blobferry.django.ferries import Ferry
from dev.services import Valkey, valkey
from models import Database
from tests.client.conftest import Site

if not settings.configured:
    settings.configure(
        SECRET_KEY="of tests",
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"} for alias in ("default", "other")
        },
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")),
            "blobferry.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        ROOT_URLCONF="tests.django.urls",
        ALLOWED_HOSTS=["testserver"],
        STATIC_URL="static/",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()


def as_in_settings(url: str) -> dict[str, Any]:
    """A database URL as an entry of DATABASES."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        # Writers wait for each other, on a busy machine for longer than Django's five seconds.
        options = {"timeout": 60}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parsed.database, "OPTIONS": options}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parsed.database,
        "USER": parsed.username or "",
        "PASSWORD": parsed.password or "",
        "HOST": parsed.query.get("host", parsed.host) or "",
        "PORT": parsed.port or parsed.query.get("port", ""),
    }


def connect(alias: str, database: dict[str, Any]) -> None:
    """Let the alias mean this database from now on."""
    before = connections[alias]
    before.close()
    if before.connection is not None:  # in memory, where Django's own close does nothing
        before.connection.close()
    del connections[alias]
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: database})[alias]


@dataclass(frozen=True)
class Project:
    """The project's client, its alias "default", and what lies in its database and broker."""

    site: Site
    ferry: Ferry

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """A statement of the app's own."""
        with connections["default"].cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall()) if cursor.description else []

    def videos(self) -> list[int]:
        """The app's own rows, as another connection sees them."""
        return self._seen("SELECT id FROM app_video ORDER BY id")

    def job_ids(self) -> list[str]:
        """The jobs, as another connection sees them."""
        return self._seen("SELECT id FROM blobferry_jobs ORDER BY seq")

    def _seen(self, sql: str) -> list[Any]:
        # On SQLite a transaction of ours would wait for Django's.
        with self.site.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return list(connection.exec_driver_sql(sql).scalars())


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def broker_url(valkey_server: Valkey) -> str:
    """Of an empty broker."""
    with redis.Redis.from_url(valkey_server.url) as connection:
        connection.flushall()
    return valkey_server.url


@pytest.fixture
def site(broker_url: str, database: Database) -> Site:
    return Site(database, broker_url)


@pytest.fixture
def postgres_site(broker_url: str, postgres_database: Database) -> Site:
    return Site(postgres_database, broker_url)


@pytest.fixture
def make_project() -> Iterator[Callable[..., Project]]:
    overridden = []

    def make(site: Site, **keys: Any) -> Project:
        connect("default", as_in_settings(site.url))
        overridden.append(override_settings(BLOBFERRY={"BROKER_URL": site.broker_url} | keys))
        overridden[-1].enable()
        return Project(site, ferry)

    yield make
    for each in reversed(overridden):
        each.disable()
    for alias in ("default", "other"):
        connect(alias, {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})


@pytest.fixture
def project(make_project: Callable[..., Project], site: Site) -> Iterator[Project]:
    project = make_project(site)
    with site.database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE app_video (id INTEGER PRIMARY KEY)")
    yield project
    connections["default"].close()
    with site.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE app_video")

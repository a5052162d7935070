"""Database URLs as the settings of apps have them: each means psycopg 3 or SQLite, or is refused by a sentence."""

import sys
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from blobferry import Client
from blobferry.errors import ConfigurationError
from blobferry.sql.database import open_engine
from blobferry.sql.database_url import parse_url

DRIVERS = ["", "+psycopg", "+psycopg2", "+psycopg2cffi", "+psycopg_async", "+asyncpg", "+aiopg", "+pg8000"]


@pytest.mark.parametrize("scheme", [f"{name}{driver}" for name in ("postgres", "postgresql") for driver in DRIVERS])
def test_every_postgres_url_means_psycopg_3(scheme: str) -> None:
    engine = open_engine(f"{scheme}://u:p%40@127.0.0.1:1/d?sslmode=require")
    assert (engine.driver, engine.dialect.name) == ("psycopg", "postgresql")
    assert engine.url == make_url("postgresql+psycopg://u:p%40@127.0.0.1:1/d?sslmode=require")
    engine.dispose()


@pytest.mark.parametrize("url", ["POSTGRES://u@h/d", " postgresql://u@h/d\n", "PostgreSQL+AsyncPG://u@h/d"])
def test_upper_case_and_the_newline_of_a_secret_file_do_not_matter(url: str) -> None:
    assert parse_url(url) == make_url("postgresql+psycopg://u@h/d")


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"])
def test_every_sqlite_url_means_its_own_driver(scheme: str) -> None:
    assert parse_url(f"{scheme}:////srv/jobs.db") == make_url("sqlite:////srv/jobs.db")


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("ssl=require", "sslmode=require"),
        ("ssl=verify-full", "sslmode=verify-full"),
        ("ssl=true", "sslmode=require"),
        ("ssl=False", "sslmode=disable"),
        ("ssl=prefer&sslmode=verify-ca", "sslmode=verify-ca"),
        ("prepared_statement_cache_size=0&statement_cache_size=0", ""),
        ("prepare_threshold=0", ""),
        ("pgbouncer=true&application_name=a", "application_name=a"),
        ("host=h1:5432&host=h2:5433", "host=h1:5432&host=h2:5433"),
    ],
)
def test_parameters_of_other_drivers_are_translated_or_needless(query: str, meant: str) -> None:
    assert parse_url(f"postgresql+asyncpg://u@/d?{query}") == make_url(f"postgresql+psycopg://u@/d?{meant}")


@pytest.mark.parametrize("name", ["connection_limit", "schema", "ssl_context", "command_timeout", "conn_max_age"])
def test_a_parameter_that_nobody_would_obey_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} is not a parameter of libpq"):
        parse_url(f"postgres://u:s3cr3t@h/d?{name}=1")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cr3t@h/d",
        "mysql+asyncmy://u:s3cr3t@h/d",
        "postgresql+nothing://u:s3cr3t@h/d",
        "postgresql+psycopg3://u:s3cr3t@h/d",
        "sqlite+pysqlcipher://:s3cr3t@/d",
        "cockroachdb://u:s3cr3t@h/d",
        "jdbc:postgresql://u:s3cr3t@h/d",
        "host=h password=s3cr3t",
        "",
    ],
)
def test_anything_else_is_refused_by_a_sentence_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PostgreSQL") as caught:
        parse_url(url)
    assert caught.value.name == "database_url"
    assert "s3cr3t" not in str(caught.value)


def test_without_psycopg_it_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    with pytest.raises(
        ConfigurationError, match=r"whatever driver the URL names: pip install 'blobferry\[postgresql\]'"
    ):
        parse_url("postgresql+asyncpg://u@h/d")


def test_an_engine_of_asyncio_is_refused_at_once() -> None:
    engine: Any = AsyncEngine.__new__(AsyncEngine)  # its drivers are not installed here
    with pytest.raises(
        ConfigurationError, match=r"needs an Engine, got .*: give database_url instead.* use blobferry.AsyncClient"
    ):
        Client(engine=engine)

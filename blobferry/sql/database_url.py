"""Database URLs: whatever the app's own settings say, Blobferry connects by psycopg 3 or SQLite's own driver."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from blobferry.errors import ConfigurationError

#: Drivers that a URL of the app may name, by database; for each the URL that means the same to Blobferry.
_DRIVERS: Final[Mapping[str, frozenset[str]]] = {
    "postgresql": frozenset(
        ("", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async", "psycopgcffi", "asyncpg", "aiopg", "pg8000")
    ),
    "sqlite": frozenset(("", "pysqlite", "aiosqlite")),
}
_CHOSEN: Final[Mapping[str, str]] = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
#: Parameters of poolers and other drivers about prepared statements, of which Blobferry makes none, and about pools.
_NEEDLESS: Final = frozenset(
    (
        "async_fallback",
        "max_cached_statement_lifetime",
        "pgbouncer",
        "prepare_threshold",
        "prepared_statement_cache_size",
        "statement_cache_size",
    )
)
#: asyncpg's ``ssl`` in libpq's words, for the values that libpq does not know.
_SSL_MODES: Final[Mapping[str, str]] = {"true": "require", "1": "require", "false": "disable", "0": "disable"}


def parse_url(url: str) -> URL:
    """The URL with the driver that Blobferry uses. Raises ConfigurationError; the message hides the password."""
    try:
        parsed = make_url(url.strip())
        database, _, driver = parsed.drivername.lower().partition("+")
        database = "postgresql" if database == "postgres" else database
        if driver in _DRIVERS.get(database, ()):
            parsed = parsed.set(drivername=_CHOSEN[database])
        is_usable = parsed.get_dialect().name in _DRIVERS and driver in _DRIVERS.get(database, ())
    except (ArgumentError, NoSuchModuleError, ValueError):  # its text may show part of the password
        problem = "needs a SQLAlchemy URL for PostgreSQL or SQLite: postgresql://user:password@host/name"
        raise ConfigurationError("database_url", problem) from None
    if not is_usable:
        problem = f"{parsed.drivername}: only PostgreSQL and SQLite are supported; write postgresql:// or sqlite://"
        raise ConfigurationError("database_url", problem)
    return _with_libpq_parameters(parsed) if database == "postgresql" else parsed


def _with_libpq_parameters(url: URL) -> URL:
    """The URL with the parameters of other drivers translated or left out. Raises ConfigurationError for the rest."""
    ssl = url.query.get("ssl")
    url = url.difference_update_query([*_NEEDLESS, "ssl"])
    if isinstance(ssl, str) and "sslmode" not in url.query:
        url = url.update_query_dict({"sslmode": _SSL_MODES.get(ssl.lower(), ssl)})
    try:
        psycopg = url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        problem = (
            f"needs the package {error.name}, by which Blobferry connects whatever driver the URL names: "
            "pip install 'blobferry[postgresql]'"
        )
        raise ConfigurationError("database_url", problem) from error
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    for name in url.query:
        if name not in known:
            problem = f"{name} is not a parameter of libpq; leave it out, Blobferry connects by psycopg 3"
            raise ConfigurationError("database_url", problem)
    return url

"""The kinds of columns that the tables have. Each is nullable or has a server default."""

from datetime import datetime
from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, String, false, text
from sqlalchemy.dialects.postgresql import JSONB

from blobferry.sql.clock import UtcDateTime, db_now

BIG_INTEGER: Final = BigInteger().with_variant(Integer, "sqlite")
JSON_VALUE: Final = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def count(name: str) -> Column[int]:
    """A number that begins at 0."""
    return Column(name, BIG_INTEGER, nullable=False, server_default=text("0"))


def words(name: str, length: int, default: str) -> Column[str]:
    """A short text."""
    return Column(name, String(length), nullable=False, server_default=default)


def time(name: str) -> Column[datetime]:
    """A time that may be unset."""
    return Column(name, UtcDateTime())


def clock(name: str) -> Column[datetime]:
    """A time that is set to the database's clock when the row is inserted."""
    return Column(name, UtcDateTime(), nullable=False, server_default=db_now())


def flag(name: str) -> Column[bool]:
    """False unless set."""
    return Column(name, Boolean, nullable=False, server_default=false())

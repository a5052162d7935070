"""The declarative base of the mapped classes. The tables are the client's, in ``blobferry.sql.tables``."""

from sqlalchemy.orm import DeclarativeBase

from blobferry.sql.tables import metadata


class Base(DeclarativeBase):
    """Base of every mapped class; ``blobferry.sql.tables`` documents the columns."""

    metadata = metadata

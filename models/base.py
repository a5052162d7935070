"""The declarative base, on top of the tables that the client shares."""

from sqlalchemy.orm import DeclarativeBase

from blobferry.sql.tables import metadata


class Base(DeclarativeBase):
    """Base of every mapped class. The columns and their meaning stand in ``blobferry.sql.tables``."""

    metadata = metadata

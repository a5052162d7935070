"""The tables of living workers, of what they and stores lack, and of spools, beside :mod:`blobferry.sql.tables`."""

from sqlalchemy import Column, Integer, String, Table, Text, text

from blobferry.sql.clock import UtcDateTime, db_now
from blobferry.sql.tables import metadata

workers = Table(
    "blobferry_workers",
    metadata,
    Column("worker", String(64), primary_key=True),  # its id
    Column("name", String(255), nullable=False, server_default=""),  # id and host, for people
    Column("alive_until", UtcDateTime()),  # unless its caretaker says so again; only of workers that run jobs
)

lacks = Table(
    "blobferry_lacks",
    metadata,
    Column("worker", String(64), primary_key=True),
    Column("need", String(512), primary_key=True),  # "storages.NAME", "directory /PATH" or "encryption_keys"
    Column("name", String(255), nullable=False, server_default=""),  # of the worker, for people
    Column("reason", Text),  # the last error
    Column("times", Integer, nullable=False, server_default=text("0")),  # jobs in a row that failed for want of it
    Column("met_at", UtcDateTime(), nullable=False, server_default=db_now()),  # the last of them
)

capabilities = Table(
    "blobferry_capabilities",
    metadata,
    Column("store", String(512), primary_key=True),  # its identity
    Column("capability", String(64), primary_key=True),  # that it was seen to lack
    Column("reason", Text),
    Column("seen_at", UtcDateTime(), nullable=False, server_default=db_now()),
)

spools = Table(
    "blobferry_spools",
    metadata,
    Column("id", String(64), primary_key=True),  # as the marker in a spool directory says, which is this database's
    Column("claimed_at", UtcDateTime(), nullable=False, server_default=db_now()),
)

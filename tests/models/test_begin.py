"""How a transaction begins on PostgreSQL: in one round trip, whatever the connection was used for before."""

from sqlalchemy import text

from models import Database
from tests.models.rows import count_rows, submit

SETTING = "SHOW idle_in_transaction_session_timeout"


def test_a_transaction_is_one_and_may_be_rolled_back(postgres_database: Database) -> None:
    with postgres_database.begin() as session:
        assert session.scalar(text(SETTING)) == "10s"
        session.execute(text("INSERT INTO blobferry_tombstones (id) VALUES ('a')"))
        with session.begin_nested() as nested:
            session.execute(text("INSERT INTO blobferry_tombstones (id) VALUES ('b')"))
            nested.rollback()
        session.execute(text("INSERT INTO blobferry_tombstones (id) VALUES ('c')"))
    assert count_rows(postgres_database, "blobferry_tombstones") == 2
    try:
        with postgres_database.begin() as session:
            session.execute(text("DELETE FROM blobferry_tombstones"))
            raise ValueError("undone")
    except ValueError:
        assert count_rows(postgres_database, "blobferry_tombstones") == 2


def test_a_connection_that_was_in_autocommit_begins_transactions_as_well(postgres_database: Database) -> None:
    for _ in range(3):
        with postgres_database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            assert connection.scalar(text(SETTING)) == "0"
        submit(postgres_database)
        with postgres_database.begin() as session:
            assert session.scalar(text(SETTING)) == "10s"
            session.execute(text("DELETE FROM blobferry_jobs"))
            session.rollback()
    assert count_rows(postgres_database, "blobferry_jobs") == 3

"""A fork takes no connection to SQLite along: parent and child would each lose what the other commits."""

import threading
import warnings
from collections.abc import Callable
from os import _exit, fork, pipe, read, waitpid, waitstatus_to_exitcode, write
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from blobferry.sql import sqlite_forks
from blobferry.sql.database import open_engine

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.* may lead to deadlocks:DeprecationWarning")


@pytest.fixture
def engine(sqlite_url: str) -> Engine:
    return open_engine(sqlite_url)


def insert(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO blobferry_spools (id) VALUES (:name)"), {"name": name})


def names(url: str) -> set[str]:
    with open_engine(url).connect() as connection:
        return set(connection.scalars(text("SELECT id FROM blobferry_spools")))


def in_child(work: Callable[[], object]) -> int:
    child = fork()
    if child:
        return child
    try:
        work()
        _exit(0)
    finally:
        _exit(1)


def succeeds(child: int) -> bool:
    return waitstatus_to_exitcode(waitpid(child, 0)[1]) == 0


def open_files() -> set[str]:
    return {str(name.resolve()) for name in Path("/proc/self/fd").iterdir() if name.exists()}


@pytest.mark.parametrize("begin", ["parent", "child"])
def test_whoever_closes_last_loses_nothing(begin: str, engine: Engine, sqlite_url: str) -> None:
    """SQLite removes its log when the last connection closes, and knows of others by locks that no child inherits."""
    insert(engine, "before")
    child_is_ready, child_may_go = pipe(), pipe()

    def work() -> None:
        insert(engine, "child, early")
        if begin == "child":
            engine.dispose()
        write(child_is_ready[1], b".")
        read(child_may_go[0], 1)
        insert(engine, "child, late")

    child = in_child(work)
    read(child_is_ready[0], 1)
    insert(engine, "parent, early")
    if begin == "parent":
        engine.dispose()
    write(child_may_go[1], b".")
    assert succeeds(child)
    insert(engine, "parent, late")
    assert names(sqlite_url) == {"before", "child, early", "child, late", "parent, early", "parent, late"}


def test_a_fork_waits_for_what_other_threads_have_in_use(engine: Engine, sqlite_url: str) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO blobferry_spools (id) VALUES ('held')"))
            begun.set()
            may_end.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(20)
    forks_soon = threading.Timer(0.2, may_end.set)
    forks_soon.start()
    child = in_child(
        lambda: insert(engine, "child") if not any("blobferry.db" in f for f in open_files()) else _exit(2)
    )
    assert may_end.is_set()
    assert succeeds(child)
    holder.join()
    assert names(sqlite_url) == {"held", "child"}


def test_a_fork_gets_its_turn_among_threads_that_leave_no_moment_without_a_connection(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning that it came along would be an error here."""
    monkeypatch.setattr(sqlite_forks, "LONGEST_WAIT", 5.0)
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            with engine.connect():
                stop.wait(0.02)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
        stop.wait(0.005)
    try:
        assert succeeds(in_child(lambda: insert(engine, "child")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_fork_does_not_keep_a_thread_from_what_another_in_use_waits_for(engine: Engine, sqlite_url: str) -> None:
    begun, done = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.connect():
            begun.set()
            assert done.wait(20)

    def help_on() -> None:
        insert(engine, "helped")
        done.set()

    holder, helper = threading.Thread(target=hold), threading.Timer(0.2, help_on)
    holder.start()
    begun.wait(20)
    helper.start()
    assert succeeds(in_child(lambda: insert(engine, "child")))
    holder.join()
    helper.join()
    assert names(sqlite_url) == {"helped", "child"}


def test_a_thread_that_forks_within_its_own_transaction_is_warned(engine: Engine) -> None:
    with engine.connect(), pytest.warns(RuntimeWarning, match="a fork takes a connection to SQLite along"):
        assert succeeds(in_child(lambda: None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert succeeds(in_child(lambda: None))


def test_a_fork_does_not_wait_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_forks, "LONGEST_WAIT", 0.05)
    begun, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.connect():
            begun.set()
            may_end.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(20)
    with pytest.warns(RuntimeWarning, match="a fork takes a connection to SQLite along"):
        child = in_child(lambda: insert(engine, "child"))
    assert succeeds(child)
    may_end.set()
    holder.join()

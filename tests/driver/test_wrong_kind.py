"""A directory where a blob is needed, and a blob where a directory is: the error says what is there."""

from collections.abc import Callable

import pytest

from tests.doubles import RecordingStore, tiny_store
from tests.driver.blobs_and_readers import put
from tests.driver.store_kinds import on_servers
from tests.faults import refusing
from worker.driver import Driver
from worker.errors import PathNotFoundError

pytestmark = pytest.mark.no_cover

CALLS: dict[str, Callable[[Driver, str], object]] = {
    "get_content": Driver.get_content,
    "read_stream": Driver.read_stream,
    "move": lambda driver, path: driver.move(path, "/elsewhere"),
    "head": Driver.head,
}


@on_servers
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.every_run_on("moto")
def test_a_directory_is_called_a_directory(driver: Driver, call: Callable[[Driver, str], object]) -> None:
    put(driver, "/moved/inside", b"")
    with pytest.raises(PathNotFoundError, match=r"path not found: /moved is a directory, and this needs a blob$"):
        call(driver, "/moved")
    with pytest.raises(PathNotFoundError, match=r"path not found: /move$"):
        call(driver, "/move")


@on_servers
@pytest.mark.every_run_on("moto")
def test_a_blob_is_called_a_blob(driver: Driver) -> None:
    put(driver, "/later.bin", b"")
    with pytest.raises(PathNotFoundError, match=r"path not found: /later.bin is a blob, not a directory$"):
        driver.list("/later.bin")
    with pytest.raises(PathNotFoundError, match=r"path not found: /later$"):
        driver.list("/later")


def test_a_missing_blob_is_that_also_where_nothing_may_be_listed() -> None:
    store = RecordingStore(refusing(tiny_store(), "list_page"))
    with pytest.raises(PathNotFoundError, match=r"path not found: /a$"):
        Driver(store).read_stream("/a")


def test_the_error_stays_as_older_clients_know_it_unless_it_says_more() -> None:
    assert PathNotFoundError("/a", "s3").args == ("/a", "s3")
    said = PathNotFoundError("/a", "s3", " is a blob, not a directory")
    assert str(PathNotFoundError(*said.args)) == str(said)

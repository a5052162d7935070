"""Permission, buckets and the network: each has its own error, and none is dressed up as a missing path."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from dev.services import S3Service, free_port
from tests.driver.blobs_and_readers import MakeDriver, Reading
from tests.driver.store_kinds import BUCKET, LIMITS, at_home, on_servers
from tests.driver.test_paths import OPERATIONS, Operation
from tests.s3_stores import s3_store
from worker.driver import Driver
from worker.errors import BlobferryError, BucketNotFoundError, PermissionDeniedError, StoreUnavailableError
from worker.stores.s3.s3_store import S3Store

pytestmark = pytest.mark.no_cover

#: Those of the nine that ask the store. (``look`` cannot tell one 404 from another: the answer to HEAD has no body.)
ASKING = {name: act for name, act in OPERATIONS.items() if name not in ("url_for", "look")}
operations = pytest.mark.parametrize("operation", ASKING.values(), ids=ASKING)


@on_servers
@operations
@pytest.mark.every_run_on("moto", only="stream")
@pytest.mark.every_run_on("swift", only="stat")
def test_a_missing_bucket_is_no_missing_path(
    service: S3Service, make_s3_store: Callable[..., S3Store], on: MakeDriver, operation: Operation
) -> None:
    with pytest.raises(BucketNotFoundError, match="no-such-bucket"):
        operation(on(make_s3_store(service, "no-such-bucket")), "/a")


@on_servers
@operations
@pytest.mark.every_run_on("swift", only="stream")
@pytest.mark.every_run_on("moto", only="stat")
def test_credentials_that_are_refused_are_no_missing_path(
    service: S3Service, make_s3_store: Callable[..., S3Store], on: MakeDriver, operation: Operation
) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        operation(on(make_s3_store(service, secret_key="wrong")), "/a")
    assert "wrong" not in str(caught.value)


@pytest.fixture(scope="module")
def nobody() -> S3Store:
    """A store at an address where nobody listens."""
    return s3_store(f"http://127.0.0.1:{free_port()}", BUCKET, limits=LIMITS)


@operations
def test_a_server_that_does_not_answer_is_no_missing_path(
    nobody: S3Store, on: MakeDriver, operation: Operation
) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        operation(on(nobody), "/a")
    assert caught.value.transient


ERRORS: dict[str, Callable[[Driver], Any]] = {
    "a missing path": lambda driver: driver.get_content("/missing"),
    "an invalid path": lambda driver: driver.get_content("bad"),
    "an invalid offset": lambda driver: driver.read_stream("/a", -1),
    "an unsupported method": lambda driver: driver.url_for("/a", {"method": "PUT"}),
}


@at_home
@pytest.mark.parametrize("fail", ERRORS.values(), ids=ERRORS)
def test_errors_survive_pickle_with_all_that_they_carry(driver: Driver, fail: Callable[[Driver], Any]) -> None:
    with pytest.raises(BlobferryError, match=driver.store.name) as caught:
        fail(driver)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (type(caught.value), str(caught.value), vars(caught.value))


def test_a_failed_write_tells_how_much_was_read(nobody: S3Store, on: MakeDriver) -> None:
    reader = Reading(b"x" * 10)
    with pytest.raises(StoreUnavailableError) as caught:
        on(nobody).write_stream("/a", 0, reader)
    assert caught.value.total_read == reader.given

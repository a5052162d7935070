"""Encryption and storage class, as configured: of every put, every upload and every copy."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from dev.services import S3Service
from tests.driver.blobs_and_readers import MakeDriver, Reading, content, data, put
from tests.driver.store_kinds import BUCKET, PART
from worker.driver import Driver
from worker.stores.blob_values import BlobOptions
from worker.stores.s3.s3_store import S3Store

pytestmark = pytest.mark.no_cover


@pytest.fixture(params=["moto"])
def kind(request: pytest.FixtureRequest) -> str:
    """The one server here that knows storage classes and keys."""
    return str(request.param)


Configured = Callable[..., Driver]
Head = Callable[[Driver, str], dict[str, Any]]


@pytest.fixture
def configured(service: S3Service, make_s3_store: Callable[..., S3Store], on: MakeDriver) -> Configured:
    """Makes a driver of a storage with these settings."""
    return lambda **settings: on(make_s3_store(service, **settings))


@pytest.fixture
def head(service: S3Service) -> Iterator[Head]:
    """Looks at a blob without the code under test."""
    with closing(service.client()) as client:
        yield lambda driver, path: client.head_object(Bucket=BUCKET, Key=driver.key(path))


def move(size: int) -> Callable[[Driver, Driver], None]:
    def act(plain: Driver, driver: Driver) -> None:
        put(plain, "/source", data(size))
        driver.move("/source", "/a")

    return act


def write(old: int, offset: int, size: int) -> Callable[[Driver, Driver], None]:
    def act(plain: Driver, driver: Driver) -> None:
        put(plain, "/a", data(old))
        driver.write_stream("/a", offset, Reading(data(size)))

    return act


Act = Callable[[Driver, Driver], None]
WAYS: dict[str, Act] = {
    "put": lambda _, driver: driver.put_content("/a", data(10)),
    "put in parts": lambda _, driver: driver.put_content("/a", data(3 * PART)),
    "write": write(10, 0, 10),
    "write in parts": write(10, 0, 3 * PART),
    "append to a small blob": write(10, 10, 10),
    "append to a large blob": write(3 * PART, 3 * PART, 10),
    "cut off": write(3 * PART, PART, 0),
    "an empty blob": write(10, 0, 0),
    "move": move(10),
    "move in parts": move(5 * PART),
    "move nothing": move(0),
}
KEY = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
#: Settings of a storage, and what the headers of all that it writes say.
CONFIGURED: dict[str, tuple[dict[str, Any], dict[str, str | None]]] = {
    "the store's key": ({"encrypt": True}, {"ServerSideEncryption": "AES256"}),
    "a named key": ({"encrypt": True, "keyid": KEY}, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY}),
    "a storage class": ({"storageclass": "REDUCED_REDUNDANCY"}, {"StorageClass": "REDUCED_REDUNDANCY"}),
    "nothing": ({}, {"SSEKMSKeyId": None, "StorageClass": None}),
}


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("settings", "expected"), CONFIGURED.values(), ids=CONFIGURED)
@pytest.mark.every_run_on("moto", only="in parts")
def test_everything_is_written_as_configured(
    configured: Configured, head: Head, act: Act, settings: dict[str, Any], expected: dict[str, str | None]
) -> None:
    act(configured(), configured(**settings))
    found = head(configured(), "/a")
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("size", [0, 10, 5 * PART])
@pytest.mark.every_run_on("moto")
def test_a_move_keeps_the_encryption_of_the_blob(configured: Configured, head: Head, size: int) -> None:
    driver = configured()
    put(driver, "/source", data(size), BlobOptions(encryption="aws:kms", encryption_key="mine"))
    before, names = head(driver, "/source"), ("ServerSideEncryption", "SSEKMSKeyId")
    driver.move("/source", "/a")
    found = head(driver, "/a")
    assert [found[name] for name in names] == [before[name] for name in names]
    assert found["SSEKMSKeyId"].endswith("mine")


@pytest.mark.parametrize("offset", [5, 2 * PART])
@pytest.mark.every_run_on("moto")
def test_a_write_at_an_offset_keeps_encryption_and_storage_class_of_the_blob(
    configured: Configured, head: Head, offset: int
) -> None:
    driver = configured()
    options = BlobOptions(encryption="aws:kms", encryption_key="mine", storage_class="STANDARD_IA")
    put(driver, "/a", data(3 * PART), options)
    driver.write_stream("/a", offset, Reading(data(10)))
    found = head(driver, "/a")
    assert (found["ServerSideEncryption"], found["StorageClass"]) == ("aws:kms", "STANDARD_IA")
    assert found["SSEKMSKeyId"].endswith("mine")
    assert content(driver, "/a") == data(3 * PART)[:offset] + data(10)

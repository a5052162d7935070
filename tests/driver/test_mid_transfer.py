"""A store that changes its mind in the middle of a write: slow down; no longer you; the bucket is gone."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from dev.proxies.s3_faults import Fault, FaultProxy, fault_proxy
from dev.services import S3Service, create_bucket
from tests.doubles import BytesSource, HookedStore, RecordingStore
from tests.driver.blobs_and_readers import Once
from tests.driver.store_kinds import BUCKET, COPYING, LIMITS, PART
from tests.s3_stores import s3_store
from worker.driver import Driver
from worker.errors import BucketNotFoundError, PermissionDeniedError, SlowDownError
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.pace import TRIES, Paces

pytestmark = pytest.mark.no_cover

CONTENT = bytes(range(251)) * (10 * PART // 251)


Through = tuple[FaultProxy, Driver]


@pytest.fixture
def paces() -> Paces:
    return Paces(pause=0.01)


@pytest.fixture
def through(moto_service: S3Service, root: str, paces: Paces) -> Iterator[Through]:
    """A fault proxy, and a driver that reaches its store through it and repeats nothing."""
    with fault_proxy(moto_service.endpoint) as proxy:
        store = s3_store(replace(moto_service, endpoint=proxy.endpoint), BUCKET, limits=LIMITS, max_attempts=1)
        with closing(Engine(part_size=PART, part_threads=4, paces=paces)) as engine:
            yield proxy, Driver(store, root=root, engine=engine, copying=COPYING)


def test_a_write_gets_there_at_a_slower_pace_though_the_store_asks_to_slow_down(through: Through, paces: Paces) -> None:
    proxy, driver = through
    proxy.inject(Fault("upload_part", "slow_down", times=4, after=2))
    assert driver.write_stream("/a", 0, BytesSource(CONTENT)) == len(CONTENT)
    assert proxy.injected() == {("upload_part", "slow_down"): 4}
    proxy.inject(Fault("upload_part", "slow_down", times=None))
    checkpoint = MemoryCheckpoint("job")
    with pytest.raises(SlowDownError):
        driver.write_stream("/b", 0, BytesSource(CONTENT), checkpoint=checkpoint)
    assert proxy.injected()["upload_part", "slow_down"] >= TRIES
    assert paces.of(driver.store).limit(4) == 1
    proxy.inject()
    driver.write_stream("/b", 0, BytesSource(CONTENT), checkpoint=checkpoint)
    assert driver.get_content("/a") == driver.get_content("/b") == CONTENT
    assert paces.of(driver.store).limit(4) == 4


def test_a_permission_that_is_withdrawn_ends_the_write_at_once_and_keeps_what_was_sent(through: Through) -> None:
    proxy, driver = through
    proxy.inject(Fault("upload_part", "access_denied", times=None, after=4))
    checkpoint = MemoryCheckpoint("job")
    with pytest.raises(PermissionDeniedError, match="AccessDenied") as caught:
        driver.write_stream("/a", 0, BytesSource(CONTENT), checkpoint=checkpoint)
    assert not caught.value.transient
    assert checkpoint.upload is not None
    assert len(checkpoint.upload.parts) == 4
    proxy.inject()
    driver.write_stream("/a", 0, BytesSource(CONTENT), checkpoint=checkpoint)  # once it is given back
    assert sum(seen.call.operation == "upload_part" for seen in proxy.exchanges()) == 10 - 4
    assert driver.get_content("/a") == CONTENT


def test_a_bucket_that_goes_in_the_middle_of_a_write_is_named_and_not_tried_again(moto_service: S3Service) -> None:
    store = s3_store(moto_service, create_bucket(moto_service, "short-lived"), limits=LIMITS)
    vanish = Once("upload_part", lambda: moto_service.client().delete_bucket(Bucket="short-lived"), at=3)
    recorded = RecordingStore(HookedStore(store, before=vanish))
    with (
        closing(Engine(part_size=PART, part_threads=1)) as engine,
        pytest.raises(BucketNotFoundError, match="short-lived") as caught,
    ):
        Driver(recorded, engine=engine).write_stream("/a", 0, BytesSource(CONTENT), checkpoint=MemoryCheckpoint("job"))
    assert (caught.value.transient, len(recorded.named("upload_part"))) == (False, 3)

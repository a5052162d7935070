"""A new kind of store is one constructor: once it is registered, the driver knows it by its name."""

from datetime import UTC, datetime

import pytest

from tests.doubles import WrappedStore
from tests.driver.blobs_and_readers import MakeDriver, Reading, data, stored
from tests.driver.store_kinds import LIMITS, PART
from worker.driver import Driver
from worker.errors import ConfigurationError, PathNotFoundError, UnsupportedMethodError
from worker.parameters import DriverParameters
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.open_store import open_store, register_store
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

pytestmark = pytest.mark.no_cover

Open = MakeDriver


class Shelf(WrappedStore):
    """One of the buckets of a server that exists in this process alone."""

    def __init__(self, buckets: dict[str, MemoryStore], name: str) -> None:
        super().__init__(buckets.setdefault(name, MemoryStore(name, limits=LIMITS)))
        self.name, self.endpoint, self.is_warm = "toy", "toy:", False

    def warm_up(self) -> None:
        self.is_warm = True


@pytest.fixture
def open_toy(engine: Engine) -> Open:
    """Opens drivers on a toy server of this test's own, from parameters and nothing else."""
    buckets: dict[str, MemoryStore] = {}

    def construct(parameters: DriverParameters, connections: int) -> Store:
        assert connections > engine.threads.count
        return Shelf(buckets, parameters.bucket)

    register_store("toy", construct)

    def make(bucket: str = "shelf", root: str = "/r") -> Driver:
        return Driver.from_parameters({"driver": "toy", "bucket": bucket, "rootdirectory": root}, engine=engine)

    return make


def test_every_operation_works_on_a_store_that_was_registered(open_toy: Open) -> None:
    driver = open_toy()
    driver.put_content("/d/small", b"content")
    assert driver.write_stream("/d/large", 0, Reading(data(5 * PART))) == 5 * PART
    assert driver.write_stream("/d/large", 2 * PART, Reading(data(PART))) == PART
    assert driver.get_content("/d/small") == b"content"
    with driver.read_stream("/d/large", PART) as stream:
        assert stream.read() == data(5 * PART)[PART : 2 * PART] + data(PART)
    assert driver.stat("/d/large").size == 3 * PART
    assert abs((driver.stat("/d/small").mod_time or datetime.min.replace(tzinfo=UTC)) - datetime.now(UTC)).days == 0
    assert driver.list("/d") == ["/d/large", "/d/small"]
    driver.move("/d/large", "/e")
    assert (driver.list("/d"), driver.stat("/e").size) == (["/d/small"], 3 * PART)
    driver.delete("/d")
    with pytest.raises(PathNotFoundError):
        driver.stat("/d")
    with pytest.raises(UnsupportedMethodError):
        driver.url_for("/e")
    assert list(driver.store.list_uploads()) == []


def test_its_identity_tells_whether_two_drivers_share_keys(open_toy: Open) -> None:
    here, same, other = open_toy(), open_toy(), open_toy("other")
    here.put_content("/a", b"content")
    here.move("/a", "/a", dest=same)
    assert stored(here) == {"a": b"content"}
    here.move("/a", "/a", dest=other)
    assert (stored(here), stored(other)) == ({}, {"a": b"content"})
    assert here.store.identity == same.store.identity != other.store.identity


def test_warming_up_a_driver_warms_up_its_store(open_toy: Open) -> None:
    driver = open_toy()
    driver.warm_up()
    assert isinstance(driver.store, Shelf)
    assert driver.store.is_warm


def test_a_name_that_nobody_registered_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match="driver: is not one of local, memory, s3"):
        DriverParameters.parse({"driver": "tape"})
    assert open_store(DriverParameters.parse({"driver": "memory"}), connections=1).name == "memory"

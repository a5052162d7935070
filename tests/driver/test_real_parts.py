"""Parts of 5 MiB, as S3 wants them, by drivers made from parameters: the sizes of everybody else's test suites."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dev.services import create_bucket
from tests.driver.blobs_and_readers import content, data, file_source, put, uploads_at, written
from tests.driver.store_kinds import SERVERS, cases
from worker.driver import Driver
from worker.transfer.upload.engine import Engine
from worker.units import MIB

pytestmark = pytest.mark.no_cover


@pytest.fixture
def driver(kind: str, request: pytest.FixtureRequest, tmp_path: Path, root: str) -> Iterator[Driver]:
    """Made from parameters, as an operator does."""
    parameters = {"driver": kind, "rootdirectory": str(tmp_path / "blobs") if kind == "local" else root}
    if kind in SERVERS:
        service = request.getfixturevalue("service")
        parameters |= {
            "driver": "s3",
            "bucket": create_bucket(service, "real-parts"),
            "region": service.region,
            "regionendpoint": service.endpoint,
            "accesskey": service.access_key,
            "secretkey": service.secret_key,
            "forcepathstyle": "true",
            "multipartcopymaxconcurrency": "2",
            **dict.fromkeys(("chunksize", "multipartcopythresholdsize", "multipartcopychunksize"), str(5 * MIB)),
        }
    engine = Engine(part_size=5 * MIB, part_threads=2)
    yield Driver.from_parameters(parameters, engine=engine)
    engine.close()


# The very table that was run on the old driver, with its sizes.
CASES: dict[str, tuple[int, int, int]] = {
    "6 MiB, 10 B at 6 MiB": (6 * MIB, 6 * MIB, 10),
    "100 B, nothing at 11 MiB": (100, 11 * MIB, 0),
}
MORE: dict[str, tuple[int, int, int]] = {
    "6 MiB, 10 B at 12 MiB": (6 * MIB, 12 * MIB, 10),
    "12 MiB, 10 B at 1 MiB": (12 * MIB, MIB, 10),
    "12 MiB, nothing at 6 MiB": (12 * MIB, 6 * MIB, 0),
    "100 B, 10 B at 11 MiB": (100, 11 * MIB, 10),
    "5 MiB, 5 MiB at 5 MiB": (5 * MIB, 5 * MIB, 5 * MIB),
}


@cases("old_size, offset, size", CASES, MORE)
@pytest.mark.every_run_on("swift")
def test_a_write_with_parts_of_5_mib_follows_the_rule(
    driver: Driver, tmp_path: Path, old_size: int, offset: int, size: int
) -> None:
    old, new = data(old_size, seed=1), data(size, seed=2)
    put(driver, "/blob", old)
    with closing(file_source(tmp_path, new)) as source:
        assert driver.write_stream("/blob", offset, source) == size
    assert content(driver, "/blob") == written(old, offset, new)
    assert uploads_at(driver, "/blob") == []


@pytest.mark.every_run_on("local", "moto")
def test_a_stream_of_many_parts_of_5_mib_is_written_read_moved_and_deleted(driver: Driver, tmp_path: Path) -> None:
    new = data(11 * MIB + 3)
    (tmp_path / "stream.bin").write_bytes(new)
    with (tmp_path / "stream.bin").open("rb") as reader:
        assert driver.write_stream("/a", 0, reader) == len(new)
    assert driver.stat("/a").size == len(new)
    driver.move("/a", "/b")
    with driver.read_stream("/b", 5 * MIB + 1) as stream:
        assert stream.read() == new[5 * MIB + 1 :]
    driver.delete("/b")
    assert driver.list("/") == []

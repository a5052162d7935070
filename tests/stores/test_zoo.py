"""Every profile of the zoo: what a driver does on it, and five jobs."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from dev.proxies.quirk_proxy import QuirkProxy, quirk_proxy
from dev.services import S3Service, create_bucket, moto
from dev.zoo import PROFILES
from models import Database, JobRow
from tests.doubles import unfinished
from tests.models.rows import job_row, submit
from worker.driver import Driver
from worker.errors import BlobExistsError, PathNotFoundError
from worker.jobs.runner import run_job
from worker.runtime import Runtime
from worker.settings import Settings, SourcesSettings, TransferSettings
from worker.stores.blob_values import BlobOptions
from worker.stores.capabilities import Capability
from worker.stores.s3.s3_store import S3Store
from worker.units import MIB

pytestmark = pytest.mark.no_cover

BUCKET = "zoo"
PART = 5 * MIB
DATA = os.urandom(2 * PART + 1)
OPTIONS = BlobOptions("text/plain", {"owner": "me"})
#: What the driver must have found out by itself on a profile, without a setting.
FOUND_OUT = {
    "gcs-501": {Capability.BATCH_DELETE},
    "gcs-400": {Capability.BATCH_DELETE},
    "b2": {Capability.CHECKSUM, Capability.CHECKSUM_MODE},
    "forgetful copies": {Capability.COPY_OPTIONS},
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Service]:
    with moto() as service:
        create_bucket(service, BUCKET)
        yield service


def every_other(first: int) -> pytest.MarkDecorator:
    """All profiles, every second one in every run: the two tests together see each of them every time."""
    cases = [
        pytest.param(name, marks=[] if number % 2 == first else pytest.mark.long)
        for number, name in enumerate(PROFILES)
    ]
    return pytest.mark.parametrize("profile", cases)


@pytest.fixture
def proxy(s3: S3Service, profile: str) -> Iterator[QuirkProxy]:
    with quirk_proxy(s3.endpoint, PROFILES[profile].rules()) as running:
        yield running


@pytest.fixture
def driver(s3: S3Service, proxy: QuirkProxy, profile: str, tmp_path: Path) -> Driver:
    parameters: dict[str, Any] = {
        "bucket": BUCKET,
        "rootdirectory": tmp_path.name,
        "region": s3.region,
        "regionendpoint": proxy.endpoint,
        "forcepathstyle": True,
        "accesskey": s3.access_key,
        "secretkey": s3.secret_key,
        "chunksize": PART,
        "multipartcopychunksize": PART,
        "multipartcopythresholdsize": PART,
    }
    return Driver.from_parameters(parameters | dict(PROFILES[profile].parameters))


@every_other(0)
def test_the_driver_on_every_profile(driver: Driver, profile: str) -> None:
    """Small and large blobs are written, appended to, cut, read, moved, listed and deleted."""
    driver.put_content("/small", b"one", options=OPTIONS)
    driver.put_content("/small", b"three")
    assert driver.get_content("/small") == b"three"
    driver.write_stream("/small", 5, io.BytesIO(b" four"))
    driver.write_stream("/small", 12, io.BytesIO(b"!"))
    assert driver.get_content("/small") == b"three four\0\0!"
    driver.write_stream("/small", 3, io.BytesIO(b""))
    assert driver.get_content("/small") == b"thr"
    with pytest.raises(BlobExistsError):
        driver.put_content("/small", b"x", overwrite=False)
    driver.put_content("/large", DATA, options=OPTIONS)
    driver.write_stream("/large", len(DATA), io.BytesIO(DATA))
    assert driver.get_content("/large") == 2 * DATA
    driver.put_content("/tree/a", b"a", options=OPTIONS)
    for source, dest in (("/large", "/tree/large"), ("/tree/a", "/tree/b"), ("/small", "/tree/small")):
        driver.move(source, dest)
        with pytest.raises(PathNotFoundError):
            driver.stat(source)
    assert driver.get_content("/tree/large") == 2 * DATA
    assert driver.store.options_of(driver.key("/tree/b")).metadata == OPTIONS.metadata
    assert driver.list("/tree") == ["/tree/b", "/tree/large", "/tree/small"]
    driver.delete("/tree")
    with pytest.raises(PathNotFoundError):
        driver.list("/tree")
    assert isinstance(driver.store, S3Store)
    assert driver.store.capabilities.missing >= FOUND_OUT.get(profile, set())


@pytest.fixture
def runtime(driver: Driver, sqlite_url: str, tmp_path: Path) -> Iterator[Runtime]:
    settings = Settings.model_construct(
        database_url=SecretStr(sqlite_url),
        sources=SourcesSettings(file_roots=(tmp_path,)),
        transfer=TransferSettings(part_size=PART),
    )
    runtime = Runtime(settings, database=Database(sqlite_url), drivers={"default": driver})
    yield runtime
    runtime.close()


@every_other(1)
def test_five_jobs_on_every_profile(runtime: Runtime, driver: Driver, s3: S3Service, tmp_path: Path) -> None:
    """Write, append, move, delete a tree, read; and nothing is left open."""
    (tmp_path / "source").write_bytes(DATA)
    file = (tmp_path / "source").as_uri()
    jobs: list[tuple[str, dict[str, Any]]] = [
        ("write_stream", {"path": "/d/a", "source": file, "metadata": {"owner": "me"}}),
        ("write_stream", {"path": "/d/a", "source": file, "offset": len(DATA)}),
        ("put_content", {"path": "/d/small", "contents": b"small"}),
        ("move", {"source_path": "/d/a", "dest_path": "/b"}),
        ("move", {"source_path": "/d/small", "dest_path": "/d/smaller"}),
        ("delete", {"path": "/d"}),
        ("read_stream", {"path": "/b", "dest": (tmp_path / "dest").as_uri()}),
    ]
    for operation, arguments in jobs:
        job = submit(runtime.database, operation=operation, arguments=arguments, size=None)
        for _ in range(5):
            run_job(runtime, job)
            row = job_row(runtime.database, job)
            if row.state == "succeeded":
                break
            assert row.state in ("retrying", "verifying"), f"{operation}: {row.error_code}: {row.error_message}"
            with runtime.database.begin() as session:
                session.execute(update(JobRow).values(run_at=None))
        assert row.state == "succeeded", f"{operation}: {row.error_code}: {row.error_message}"
    assert (tmp_path / "dest").read_bytes() == 2 * DATA
    assert unfinished(Driver.from_parameters(
        {"bucket": BUCKET, "region": s3.region, "regionendpoint": s3.endpoint, "forcepathstyle": True,
         "accesskey": s3.access_key, "secretkey": s3.secret_key}).store) == []  # fmt: skip

"""The driver: parameters, path rules, stat, and whole blobs, on memory and in a directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from worker.driver import Driver
from worker.errors import (
    ConfigurationError,
    InvalidOffsetError,
    InvalidPathError,
    NotSupportedError,
    PathNotFoundError,
    SourceNotFoundError,
)
from worker.parameters import DriverParameters
from worker.runtime import Runtime
from worker.settings import Settings, Sources, Transfer
from worker.transfer.engine import Engine
from worker.transfer.sources import FileSource

S3 = {"bucket": "videos", "region": "eu-central-1"}


@pytest.fixture(params=["memory", "local"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    engine = Engine(part_size=5 * 1024 * 1024, part_threads=2)
    root = {"memory": "root", "local": str(tmp_path / "blobs")}[request.param]
    yield Driver.from_parameters({"driver": request.param, "rootdirectory": root}, engine=engine)
    engine.close()


def write(driver: Driver, path: str, data: bytes, directory: Path) -> int:
    file = directory / "source.bin"
    file.write_bytes(data)
    source = FileSource.open(file.as_uri(), [directory])
    try:
        return driver.write_stream(path, 0, source)
    finally:
        source.close()


def read(driver: Driver, path: str) -> bytes:
    with driver.store.get(driver.key(path)) as reader:
        return b"".join(iter(lambda: reader.read(1024 * 1024), b""))


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"region": "eu-central-1"}, "bucket"),
        ({"bucket": "videos"}, "region"),
        (S3 | {"accesskey": "a"}, "accesskey, secretkey"),
        (S3 | {"keyid": "k"}, "keyid"),
        (S3 | {"chunksize": 5 * 1024 * 1024 - 1}, "chunksize"),
        (S3 | {"chunksize": True}, "chunksize"),
        (S3 | {"secure": "yes"}, "secure"),
        (S3 | {"encrypt": 1}, "encrypt"),
        (S3 | {"checksum": "sha1"}, "checksum"),
        (S3 | {"driver": "swift"}, "driver"),
        (S3 | {"v4auth": True}, "v4auth"),
        (S3 | {"multipartcopymaxconcurrency": 0}, "multipartcopymaxconcurrency"),
        ({"driver": "local"}, "rootdirectory"),
        ({"driver": "local", "rootdirectory": "relative"}, "rootdirectory"),
    ],
    ids=str,
)
def test_a_wrong_or_missing_parameter_is_named(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Driver.from_parameters(parameters)
    assert caught.value.name == named


def test_booleans_and_numbers_may_be_words() -> None:
    parameters = DriverParameters.parse(S3 | {"secure": "False", "encrypt": "true", "chunksize": "5242880"})
    assert (parameters.secure, parameters.encrypt, parameters.chunksize) == (False, True, 5 * 1024 * 1024)


def test_secrets_do_not_show() -> None:
    secrets = {"accesskey": "AKIDCANARY", "secretkey": "s3cr3t", "sessiontoken": "t0k3n"}
    parameters = DriverParameters.parse(S3 | secrets)
    driver = Driver.from_parameters(parameters)
    shown = repr(parameters) + repr(vars(driver)) + repr(vars(driver.store))
    assert not [secret for secret in secrets.values() if secret in shown]


def test_making_a_driver_sends_no_request() -> None:
    Driver.from_parameters(S3 | {"regionendpoint": "http://127.0.0.1:1", "accesskey": "a", "secretkey": "b"}).warm_up()


@pytest.mark.parametrize("path", ["", "/", "a", "/a/", "//a", "/a//b", "/a/../b", "/./a", "/a\n", "/ä", "/a b"])
def test_a_bad_path_is_refused_before_anything_else(driver: Driver, path: str) -> None:
    for refused in (lambda: driver.stat(path), lambda: driver.look(path)):
        with pytest.raises(InvalidPathError) as caught:
            refused()
        assert (caught.value.path, caught.value.driver) == (path, driver.store.name)


def test_the_root_directory_counts_for_the_length_of_a_key() -> None:
    driver = Driver.from_parameters({"driver": "memory", "rootdirectory": "/r" * 10 + "/"})
    longest = "/" + "a" * (1024 - 20)
    assert len(driver.key(longest)) == 1024
    with pytest.raises(InvalidPathError):
        driver.key(longest + "a")


@pytest.mark.parametrize("size", [0, 1, 5 * 1024 * 1024, 11 * 1024 * 1024 + 3])
def test_a_blob_is_what_was_written(driver: Driver, tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size % 4096)) + bytes(size - size % 4096)
    assert write(driver, "/a/b.bin", data, tmp_path) == size
    assert read(driver, "/a/b.bin") == data
    found = driver.stat("/a/b.bin")
    assert (found.path, found.size, found.is_dir) == ("/a/b.bin", size, False)
    assert found.mod_time is not None
    assert driver.unfinished_uploads("/a/b.bin") == []


def test_stat_looks_at_the_path_and_then_below_it(driver: Driver, tmp_path: Path) -> None:
    write(driver, "/a/bc", b"x", tmp_path)
    write(driver, "/a/b-d", b"x", tmp_path)
    found = driver.stat("/a")
    assert (found.path, found.size, found.mod_time, found.is_dir) == ("/a", 0, None, True)
    for path in ("/a/b", "/c"):
        with pytest.raises(PathNotFoundError) as caught:
            driver.stat(path)
        assert (caught.value.path, caught.value.driver) == (path, driver.store.name)
    driver.store.put(driver.key("/marker") + "/", b"")
    assert driver.stat("/marker").is_dir


def test_offsets_are_checked_after_the_path(driver: Driver, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"x")
    source = FileSource.open(file.as_uri(), [tmp_path])
    for path, offset, error in (
        ("bad", -1, InvalidPathError),
        ("/a", -1, InvalidOffsetError),
        ("/a", 1, NotSupportedError),
    ):
        with pytest.raises(error):
            driver.write_stream(path, offset, source)
    source.close()


def test_a_blob_can_be_the_source_of_another_storage(tmp_path: Path) -> None:
    engine = Engine(part_size=5 * 1024 * 1024, part_threads=2)
    drivers = {
        "default": Driver.from_parameters({"driver": "local", "rootdirectory": str(tmp_path / "blobs")}, engine=engine),
        "archive": Driver.from_parameters({"driver": "memory"}, engine=engine),
    }
    url = SecretStr(f"sqlite:///{tmp_path}/none.db")
    settings = Settings.model_construct(database_url=url, sources=Sources(), transfer=Transfer())
    runtime = Runtime(settings, drivers=drivers)
    data = bytes(range(256)) * 40_000
    write(drivers["default"], "/from/here", data, tmp_path)
    source = runtime.open_source("blob://default/from/here")
    drivers["archive"].write_stream("/to/there", 0, source)
    source.close()
    assert read(drivers["archive"], "/to/there") == data
    with pytest.raises(SourceNotFoundError):
        runtime.open_source("blob://default/from/nowhere")
    with pytest.raises(ConfigurationError, match=r"storages\.nowhere"):
        runtime.open_source("blob://nowhere/from/here")
    runtime.close()
    engine.close()

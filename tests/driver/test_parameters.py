"""Driver.from_parameters: the registry's names, each checked and named; and no request before the first operation."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.doubles import blob
from tests.driver.blobs_and_readers import data, file_source
from worker.driver import Driver
from worker.errors import ConfigurationError, InvalidPathError, SourceNotFoundError
from worker.parameters import DriverParameters
from worker.runtime import Runtime
from worker.settings import Settings, SourcesSettings, TransferSettings
from worker.transfer.upload.engine import Engine
from worker.units import GIB, MIB

pytestmark = pytest.mark.no_cover

S3 = {"bucket": "videos", "region": "eu-central-1"}
ALL = S3 | {
    "accesskey": "a",
    "secretkey": "s",
    "sessiontoken": "t",
    "encrypt": True,
    "keyid": "k",
    "secure": True,
    "regionendpoint": "https://s3.example.org",
    "forcepathstyle": True,
    "rootdirectory": "/registry",
    "chunksize": 10 * MIB,
    "storageclass": "STANDARD_IA",
    "multipartcopychunksize": 32 * MIB,
    "multipartcopythresholdsize": 32 * MIB,
    "multipartcopymaxconcurrency": 100,
    "driver": "s3",
    "checksum": "crc32c",
}


WRONG: dict[str, list[Any]] = {
    "keyid": ["k"],
    "chunksize": [5 * MIB - 1, 5 * GIB + 1, True, 1e7, "10MB"],
    "secure": ["yes", 1],
    "encrypt": [1],
    "forcepathstyle": ["1"],
    "checksum": ["sha1"],
    "driver": ["swift"],
    "v4auth": [True],
    "Bucket": ["videos"],
    "multipartcopychunksize": [5 * MIB - 1, 5 * GIB + 1],
    "multipartcopythresholdsize": [-1, 5 * GIB + 1],
    "multipartcopymaxconcurrency": [0],
}


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"region": "eu-central-1"}, "bucket"),
        ({"bucket": "videos"}, "region"),
        (S3 | {"accesskey": "a"}, "accesskey, secretkey"),
        (S3 | {"secretkey": "s"}, "accesskey, secretkey"),
        *((S3 | {name: value}, name) for name, values in WRONG.items() for value in values),
        ({"driver": "local"}, "rootdirectory"),
        ({"driver": "local", "rootdirectory": "relative"}, "rootdirectory"),
        ({"driver": "local", "rootdirectory": "/" + "r" * 255}, "rootdirectory"),
    ],
    ids=str,
)
def test_a_wrong_or_missing_parameter_is_named(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Driver.from_parameters(parameters)
    assert caught.value.name == named


def test_all_parameters_of_the_registry_are_known() -> None:
    driver = Driver.from_parameters(ALL)
    assert driver.key("/a") == "registry/a"
    assert (driver.store.name, driver.store.bucket, driver.store.checksum) == ("s3", "videos", "crc32c")


@pytest.mark.parametrize("name", ["multipartcopythresholdsize", "chunksize", "multipartcopychunksize"])
def test_the_bounds_themselves_are_allowed(name: str) -> None:
    lowest = 0 if name == "multipartcopythresholdsize" else 5 * MIB
    for value in (lowest, 5 * GIB):
        Driver.from_parameters(S3 | {name: value})


def test_booleans_and_numbers_may_be_words() -> None:
    parameters = DriverParameters.parse(S3 | {"secure": "False", "encrypt": "true", "chunksize": "5242880"})
    assert (parameters.secure, parameters.encrypt, parameters.chunksize) == (False, True, 5 * MIB)


def test_secrets_do_not_show() -> None:
    secrets = {"accesskey": "AKIDCANARY", "secretkey": "s3cr3t", "sessiontoken": "t0k3n"}
    parameters = DriverParameters.parse(S3 | secrets)
    driver = Driver.from_parameters(parameters)
    shown = repr(parameters) + repr(vars(driver)) + repr(vars(driver.store))
    assert not [secret for secret in secrets.values() if secret in shown]


def test_making_a_driver_sends_no_request() -> None:
    Driver.from_parameters(S3 | {"regionendpoint": "http://127.0.0.1:1", "accesskey": "a", "secretkey": "b"}).warm_up()


def test_making_a_local_driver_makes_no_directory(tmp_path: Path) -> None:
    Driver.from_parameters({"driver": "local", "rootdirectory": str(tmp_path / "blobs")})
    assert list(tmp_path.iterdir()) == []


def test_the_root_directory_counts_for_the_length_of_a_key() -> None:
    driver = Driver.from_parameters({"driver": "memory", "rootdirectory": "/r" * 10 + "/"})
    longest = "/" + "a" * (1024 - 20)
    assert len(driver.key(longest)) == 1024
    with pytest.raises(InvalidPathError):
        driver.key(longest + "a")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with closing(Engine(part_size=5 * MIB, part_threads=2)) as engine:
        yield engine


def test_a_blob_can_be_the_source_of_another_storage(tmp_path: Path, engine: Engine) -> None:
    near = Driver.from_parameters({"driver": "local", "rootdirectory": str(tmp_path / "blobs")}, engine=engine)
    far = Driver.from_parameters({"driver": "memory"}, engine=engine)
    url = SecretStr(f"sqlite:///{tmp_path}/none.db")
    settings = Settings.model_construct(database_url=url, sources=SourcesSettings(), transfer=TransferSettings())
    content = data(11 * MIB)
    with closing(Runtime(settings, drivers={"default": near, "archive": far})) as runtime:
        with closing(file_source(tmp_path, content)) as file:
            near.write_stream("/from/here", 0, file)
        with closing(runtime.open_source("blob://default/from/here")) as source:
            far.write_stream("/to/there", 0, source)
        assert blob(far.store, "to/there") == content
        with pytest.raises(SourceNotFoundError):
            runtime.open_source("blob://default/from/nowhere")
        with pytest.raises(ConfigurationError, match=r"storages\.nowhere"):
            runtime.open_source("blob://nowhere/from/here")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("NONE", None),
        ("none", None),
        ("", None),
        (None, None),
        ("standard", "STANDARD"),
        ("GLACIER_IR", "GLACIER_IR"),
    ],
)
def test_no_storage_class_is_none_as_in_the_registry(given: str | None, used: str | None) -> None:
    assert DriverParameters.parse({"bucket": "b", "region": "r", "storageclass": given}).storageclass == used

"""Client and worker sign the same URLs: by the same parameters, for a matrix of them."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from blobferry import Client
from blobferry.errors import BlobferryError, ConfigurationError, InvalidRequestError
from blobferry.signing import storage_parameters
from blobferry.signing.storage_parameters import UrlParameters
from worker.driver import Driver
from worker.parameters import DriverParameters

pytestmark = pytest.mark.no_cover

NOWHERE = "sqlite:////nowhere/at/all.db"
KEYS = {"accesskey": "AKIDTEST", "secretkey": "s3cr3t-test"}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "aws": {"region": "eu-central-1"},
    "aws us-east-1": {"region": "us-east-1"},
    "aws china": {"region": "cn-north-1"},
    "a url": {"regionendpoint": "http://minio:9000", "region": "us-east-1"},
    "no region": {"regionendpoint": "https://minio:9000"},
    "no scheme": {"regionendpoint": "minio:9000", "region": "x", "secure": "false"},
    "public": {"regionendpoint": "http://minio:9000", "region": "x", "publicendpoint": "https://files.example.com"},
    "public for aws": {"region": "eu-central-1", "publicendpoint": "files.example.com"},
    "public with a path": {"regionendpoint": "http://m", "region": "x", "publicendpoint": "https://example.com/s3/"},
}
STYLES: list[dict[str, Any]] = [{}, {"forcepathstyle": True}, {"forcepathstyle": "true"}]
BUCKETS = ["media", "My_Media", "media.example.com"]
ROOTS: list[dict[str, Any]] = [{}, {"rootdirectory": "/deep/down/"}]
WRITES: list[dict[str, Any]] = [
    {},
    {"encrypt": True},
    {"encrypt": "true", "keyid": "k", "storageclass": "standard_ia"},
    {"storageclass": "NONE", "sessiontoken": "token"},
]
ASKED: list[dict[str, Any]] = [
    {},
    {"method": "HEAD"},
    {"method": "PUT"},
    {"method": "PUT", "content-type": "video/mp4"},
    {"response-content-disposition": 'attachment; filename="a b"', "response-content-type": "text/plain"},
]
MATRIX = [
    pytest.param({"bucket": bucket, **endpoint, **style, **root, **writes, **KEYS}, id=f"{name}-{number}")
    for name, endpoint in ENDPOINTS.items()
    for number, (bucket, style, root, writes) in enumerate(itertools.product(BUCKETS, STYLES, ROOTS, WRITES))
    if number % 13 == len(name) % 13 or number < len(WRITES)
]


def without_moment(url: str) -> tuple[str, list[tuple[str, str]]]:
    """The URL but for when it was signed, on which its signature depends as well."""
    query = [(name, value) for name, value in parse_qsl(urlsplit(url).query) if name != "X-Amz-Signature"]
    return url.partition("?")[0], [(name, value[:8] if name == "X-Amz-Date" else value) for name, value in query]


@pytest.mark.parametrize("given", MATRIX)
def test_both_sign_the_same(given: dict[str, Any]) -> None:
    driver = Driver.from_parameters(given)
    with Client(database_url=NOWHERE, storages={"default": given}) as client:
        for options in ASKED:
            here, there = client.url_for("/a/b.mp4", options), driver.url_for("/a/b.mp4", options)
            assert without_moment(here) == without_moment(there)
            assert dict(here.headers) == dict(there.headers)


def test_signed_in_the_same_second_they_are_the_same_to_the_letter() -> None:
    given = {"bucket": "media", "region": "eu-central-1", **KEYS}
    driver = Driver.from_parameters(given)
    options = {"expiry": datetime.now(UTC) + timedelta(days=1)}
    with Client(database_url=NOWHERE, storages={"default": given}) as client:
        # Those of a later pair if the second has ended between the two.
        assert any(client.url_for("/a", options) == driver.url_for("/a", options) for _ in range(100))


WRONG: list[dict[str, Any]] = [
    {"bucket": ""},
    {"bucket": "b" * 256},
    {"region": None},
    {"secure": 1},
    {"forcepathstyle": "yes"},
    {"accesskey": None},
    {"keyid": "k"},
    {"no_such": "x"},
    {"driver": "local"},
    {"driver": "local", "rootdirectory": "/" + "d" * 255},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_both_refuse_wrong_parameters_in_the_same_words(wrong: dict[str, Any]) -> None:
    given = {"bucket": "media", "region": "eu-central-1", **KEYS, **wrong}
    with pytest.raises(ConfigurationError) as there:
        DriverParameters.parse(given)
    with pytest.raises(ConfigurationError) as here:
        UrlParameters.parse(given, name="default")
    assert (here.value.name, here.value.problem) == (f"storages.default.{there.value.name}", there.value.problem)


ODD: list[tuple[str, dict[str, Any]]] = [
    ("/a/../b", {}),
    ("/a b", {}),
    ("/" + "a" * 1010, {}),
    ("/a", {"method": "PUT", "response-content-type": "text/plain"}),
    ("/a", {"content-type": "text/plain"}),
    ("/a", {"expiry": datetime(9000, 1, 1, tzinfo=UTC)}),
    ("/a", {"expiry": datetime(2000, 1, 1, tzinfo=UTC)}),
]


@pytest.mark.parametrize(("path", "options"), ODD, ids=str)
def test_both_refuse_what_cannot_be_signed(path: str, options: dict[str, Any]) -> None:
    given = {"bucket": "media", "region": "eu-central-1", "rootdirectory": "/a/deep/directory", **KEYS}
    errors: list[BlobferryError] = []
    driver = Driver.from_parameters(given)
    with Client(database_url=NOWHERE, storages={"default": given}) as client:
        for sign in (client.url_for, driver.url_for):
            with pytest.raises(InvalidRequestError) as caught:
                sign(path, options)
            errors.append(caught.value)
    assert errors[0].code == errors[1].code


def test_the_client_knows_the_name_of_every_parameter() -> None:
    assert set(DriverParameters.model_fields) == storage_parameters.ELSE | storage_parameters._OWN
    assert not storage_parameters.ELSE & storage_parameters._OWN

"""URLs that a client signs by itself, as anybody fetches them from a real server: no worker, broker or database."""

import asyncio
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from blobferry import AsyncClient, Client
from blobferry.cli import main
from blobferry.errors import (
    ConfigurationError,
    CredentialsError,
    InvalidPathError,
    InvalidRequestError,
    UnsupportedMethodError,
)
from dev.services import S3Service, create_bucket, moto, swift
from tests.client.conftest import CHECKOUT
from tests.fetching import fetch

NOWHERE = "sqlite:////nowhere/at/all.db"  # a database that cannot be opened: none is
BUCKET = "signed"
BODY = b"of a blob"
TEN_MINUTES = 600


@pytest.fixture(scope="module", params=["moto", "swift"])
def service(request: pytest.FixtureRequest) -> Iterator[S3Service]:
    with {"moto": moto, "swift": swift}[request.param]() as service:  # Swift checks signatures
        create_bucket(service, BUCKET)
        client = service.client()
        client.put_object(Bucket=BUCKET, Key="root/a/b.txt", Body=BODY)
        client.close()
        yield service


def parameters(service: S3Service) -> dict[str, Any]:
    return {
        "bucket": BUCKET,
        "region": service.region,
        "regionendpoint": service.endpoint,
        "accesskey": service.access_key,
        "secretkey": service.secret_key,
        "forcepathstyle": True,
        "rootdirectory": "/root",
    }


@pytest.fixture
def client(service: S3Service) -> Iterator[Client]:
    with Client(database_url=NOWHERE, storages={"default": parameters(service)}) as client:
        yield client


def life(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])


def send(url: str, body: bytes, headers: dict[str, str]) -> int:
    try:
        with urlopen(Request(url, body, headers, method="PUT"), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            return refused.code


def test_the_blob_is_fetched(client: Client) -> None:
    assert fetch(client.url_for("/a/b.txt"))[:2] == (200, BODY)
    status, body, headers = fetch(client.url_for("/a/b.txt", {"method": "HEAD"}), "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", str(len(BODY)))
    assert fetch(client.url_for("/a/none"))[0] == 404


@pytest.mark.parametrize(
    "expiry",
    [
        TEN_MINUTES,
        float(TEN_MINUTES),
        timedelta(minutes=10),
        lambda: datetime.now(UTC) + timedelta(minutes=10),
    ],
    ids=["seconds", "a float", "a timedelta", "a datetime"],
)
def test_the_url_lives_until_then(client: Client, expiry: Any) -> None:
    url = client.url_for("/a/b.txt", {"expiry": expiry() if callable(expiry) else expiry})
    assert TEN_MINUTES - 5 <= life(url) <= TEN_MINUTES
    assert fetch(url)[0] == 200


def test_without_an_expiry_it_lives_for_20_minutes_and_never_for_more_than_7_days(client: Client) -> None:
    assert life(client.url_for("/a/b.txt")) == 1200
    assert life(client.url_for("/a/b.txt", {"expiry": timedelta(days=7)})) in (604_799, 604_800)
    with pytest.raises(InvalidRequestError, match="within 7 days"):
        client.url_for("/a/b.txt", {"expiry": timedelta(days=7, seconds=1)})


def test_a_naive_time_is_refused_by_a_sentence(client: Client) -> None:
    naive = datetime.now() + timedelta(hours=1)  # noqa: DTZ005  that is the point
    with pytest.raises(InvalidRequestError, match="options: expiry: needs a time with a zone"):
        client.url_for("/a/b.txt", {"expiry": naive})


def test_the_download_has_the_name_and_type_that_were_asked_for(client: Client) -> None:
    options = {"download-as": 'nä "1" 100%.txt', "response-content-type": "text/x-own"}
    status, body, headers = fetch(client.url_for("/a/b.txt", options))
    said = "attachment; filename=\"n_ _1_ 100%.txt\"; filename*=UTF-8''n%C3%A4%20%221%22%20100%25.txt"
    assert (status, body) == (200, BODY)
    assert (headers["content-disposition"], headers["content-type"].partition(";")[0]) == (said, "text/x-own")
    own = {"response-content-disposition": "inline"}
    assert fetch(client.url_for("/a/b.txt", own))[2]["content-disposition"] == "inline"
    with pytest.raises(InvalidRequestError, match="not both"):
        client.url_for("/a/b.txt", options | own)


def test_a_browser_puts_what_was_signed(client: Client, service: S3Service) -> None:
    url = client.url_for("/new/7.txt", {"method": "PUT", "content-type": "text/x-own", "expiry": 60})
    assert dict(url.headers) == {"Content-Type": "text/x-own"}
    assert send(url, b"of a browser", dict(url.headers)) == 200
    answer = fetch(client.url_for("/new/7.txt"))
    assert (answer[:2], answer[2]["content-type"].partition(";")[0]) == ((200, b"of a browser"), "text/x-own")
    if "moto" not in str(service.processes[0].name):  # which takes any signature
        assert send(url, b"else", {"Content-Type": "text/html"}) == 403


def test_many_urls_come_in_order_and_repeated_ones_too(client: Client) -> None:
    paths = [f"/{number % 700}" for number in range(1500)]
    urls = client.urls_for(iter(paths), {"expiry": 3600})
    assert [urlsplit(url).path for url in urls] == [f"/{BUCKET}/root{path}" for path in paths]
    assert {life(url) > 1200 for url in urls} == {True}
    assert client.urls_for([]) == []
    assert fetch(client.urls_for(["/a/b.txt", "/a/b.txt"])[1])[:2] == (200, BODY)


def test_one_wrong_path_of_many_is_named(client: Client) -> None:
    with pytest.raises(InvalidPathError) as caught:
        client.urls_for(["/a", "b"])
    assert caught.value.path == "b"
    with pytest.raises(InvalidRequestError, match="url_for takes one"):
        client.urls_for("/a")


def test_an_event_loop_signs_too(service: S3Service) -> None:
    async def sign() -> tuple[str, list[Any]]:
        async with AsyncClient(database_url=NOWHERE, storages={"default": parameters(service)}) as ferry:
            return await ferry.url_for("/a/b.txt"), await ferry.urls_for(["/a/b.txt"])

    one, many = asyncio.run(sign())
    assert [fetch(url)[:2] for url in (one, *many)] == [(200, BODY), (200, BODY)]


def variables(service: S3Service) -> dict[str, str]:
    named = {name.upper(): str(value) for name, value in parameters(service).items()}
    storage = {f"BLOBFERRY_STORAGES__DEFAULT__{name}": value for name, value in named.items()}
    return {"BLOBFERRY_DATABASE_URL": NOWHERE, **storage}


def test_the_variables_of_the_worker_are_enough(service: S3Service) -> None:
    with Client.from_env(variables(service)) as client:
        assert fetch(client.url_for("/a/b.txt"))[:2] == (200, BODY)


def test_the_file_of_the_worker_is_enough_and_variables_win(service: S3Service, tmp_path: Path) -> None:
    given = parameters(service) | {"bucket": "another", "multipartcopychunksize": "33554432"}
    lines = [f'{name} = "{value}"' for name, value in given.items() if name != "forcepathstyle"]
    text = "\n".join(['database_url = "sqlite:///worker.db"', "[storages.default]", "forcepathstyle = true", *lines])
    (tmp_path / "blobferry.toml").write_text(text)
    environ = {"BLOBFERRY_DATABASE_URL": NOWHERE, "BLOBFERRY_CONFIG": str(tmp_path / "blobferry.toml")}
    with Client.from_env(environ) as client:
        below = str(given["rootdirectory"]).strip("/")
        assert urlsplit(client.url_for("/a/b.txt")).path == f"/another/{below}/a/b.txt"
    with Client.from_env(environ | {"BLOBFERRY_STORAGES__DEFAULT__BUCKET": BUCKET}) as client:
        assert fetch(client.url_for("/a/b.txt"))[:2] == (200, BODY)


def test_the_command_prints_what_the_client_signs(service: S3Service) -> None:
    words = ["url", "/a/b.txt", "--expires", "10m", "--download-as", "mine.txt"]
    done = CliRunner().invoke(main, words, env=variables(service))
    assert (done.exit_code, done.stderr) == (0, "")
    assert fetch(done.stdout.strip())[2]["content-disposition"] == 'attachment; filename="mine.txt"'
    assert TEN_MINUTES - 5 <= life(done.stdout.strip()) <= TEN_MINUTES
    words = ["url", "/a/c.txt", "--method", "PUT", "--content-type", "text/x-own"]
    done = CliRunner().invoke(main, words, env=variables(service))
    assert (done.exit_code, done.stderr) == (0, "blobferry: the PUT has to send: Content-Type: text/x-own\n")
    assert send(done.stdout.strip(), b"x", {"Content-Type": "text/x-own"}) == 200
    done = CliRunner().invoke(main, [*words, "--json"], env=variables(service))
    assert '"headers": {"Content-Type": "text/x-own"}' in done.stdout


# --- what needs no server --------------------------------------------------------------------------------------------

AWS = {"bucket": "media", "region": "eu-central-1", "accesskey": "AKIDTEST", "secretkey": "s3cr3t-test"}


def signing(**given: Any) -> Client:
    return Client(database_url=NOWHERE, storages={"default": AWS | given})


def test_what_an_encrypting_storage_asks_of_a_put_is_said_and_signed() -> None:
    with signing(encrypt=True, keyid="key-1", storageclass="glacier_ir") as client:
        url = client.url_for("/a", {"method": "PUT"})
        assert dict(url.headers) == {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
            "x-amz-storage-class": "GLACIER_IR",
        }
        (signed,) = parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"]
        assert signed.split(";") == sorted(["host", *url.headers])
        assert dict(client.url_for("/a").headers) == {}
        assert dict(pickle.loads(pickle.dumps(url)).headers) == dict(url.headers)


@pytest.mark.parametrize("style", [True, False])
def test_urls_of_aws_name_the_region(style: bool) -> None:
    expected = (
        "https://s3.eu-central-1.amazonaws.com/media/a" if style else "https://media.s3.eu-central-1.amazonaws.com/a"
    )
    with signing(forcepathstyle=style) as client:
        assert client.url_for("/a").partition("?")[0] == expected


@pytest.mark.parametrize("driver", ["local", "memory"])
def test_a_storage_without_urls_says_so(driver: str) -> None:
    says = pytest.raises(UnsupportedMethodError, match="blobs have no URLs here")
    given = {"driver": driver, "rootdirectory": "/srv"}
    with Client(database_url=NOWHERE, storages={"default": given}) as client, says as caught:
        client.url_for("/a")
    assert caught.value.driver == driver


def test_a_storage_that_the_client_does_not_know_is_a_workers() -> None:
    with signing() as client, pytest.raises(ConfigurationError, match="broker_url: is not set"):
        client.url_for("/a", storage="elsewhere")


def test_the_storage_says_which_paths_there_are() -> None:
    with signing(keys="any") as client:
        assert urlsplit(client.url_for("/ä b")).path == "/%C3%A4%20b"
    with signing() as client, pytest.raises(InvalidPathError):
        client.url_for("/ä b")
    with pytest.raises(InvalidPathError), Client(database_url=NOWHERE, keys="any", storages={
        "default": AWS | {"keys": "registry"}}) as client:  # fmt: skip
        client.url_for("/ä b")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bucket": ""}, r"storages\.default\.bucket: is missing"),
        ({"region": None}, r"storages\.default\.region: is missing"),
        ({"regoin": "x"}, r"storages\.default\.regoin: is an unknown setting"),
        ({"secure": "maybe"}, r"storages\.default\.secure: must be true or false"),
        ({"secretkey": None}, r"storages\.default\.accesskey, secretkey: give both"),
        ({"keyid": "k"}, r"storages\.default\.keyid: needs encrypt"),
        ({"bucket": 7}, r"storages\.default\.bucket: needs a text, got int"),
        ({"keys": "all"}, r"storages\.default\.keys: needs 'registry' or 'any'"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_named_and_no_secret_shown(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{says}") as caught:
        signing(**given)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"regionendpoint": "http://user:s3cr3t@h"}, "regionendpoint: must be a URL or a host"),
        ({"publicendpoint": "ftp://h"}, "publicendpoint: must be an http or https URL"),
        ({"profile": "mine"}, "profile: is of no use with an accesskey"),
    ],
    ids=str,
)
def test_what_only_the_first_url_needs_is_wrong_at_the_first_url(given: dict[str, Any], says: str) -> None:
    with signing(**given) as client, pytest.raises(ConfigurationError, match=says) as caught:
        client.url_for("/a")
    assert "s3cr3t" not in str(caught.value)


def test_ambient_credentials_are_found_once_they_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with signing(accesskey=None, secretkey=None) as client:
        with pytest.raises(CredentialsError, match="cannot sign a URL for 'a' in bucket 'media': NoCredentialsError"):
            client.url_for("/a")
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AMBIENT\naws_secret_access_key = x\n")
        assert "AMBIENT" in client.url_for("/a")


def test_the_repr_of_what_signs_shows_no_secret() -> None:
    with signing(sessiontoken="s3cr3t-token") as client:
        assert "s3cr3t" not in repr(client._urls._here["default"]._parameters)
        assert "s3cr3t" not in repr(client._urls._here["default"]._signer._access)


LIGHT = """
import sys
from blobferry import Client
client = Client(database_url="sqlite:///nowhere.db", storages={"default": %r})
assert "botocore" not in sys.modules
assert client.url_for("/a").startswith("https://media.s3.")
"""


def test_botocore_is_loaded_by_the_first_url_and_not_before() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT % AWS], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


WITHOUT = """
import sys
sys.modules["botocore"] = None
import importlib.util
from blobferry import Client, ConfigurationError
try:
    Client(database_url="sqlite:///nowhere.db", storages={"default": %r})
except ConfigurationError as error:
    print(error)
variables = {"BLOBFERRY_DATABASE_URL": "sqlite:///nowhere.db", "BLOBFERRY_STORAGES__DEFAULT__BUCKET": "b"}
try:
    Client.from_env(variables).url_for("/a")
except ConfigurationError as error:
    print(error)
"""


def test_without_botocore_an_error_names_the_extra_and_an_environment_means_the_worker() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT % AWS], cwd=CHECKOUT, capture_output=True, text=True)
    told, asked = done.stdout.splitlines()
    assert re.search(r"storages: .*pip install 'blobferry\[signing\]'", told)
    assert "broker_url: is not set" in asked


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"BLOBFERRY_STORAGES__DEFAULT__BUCKET": "b"}, "^BLOBFERRY_STORAGES__DEFAULT__REGION: is missing"),
        ({"BLOBFERRY_STORAGES": "{"}, "^BLOBFERRY_STORAGES: needs JSON"),
        ({"BLOBFERRY_STORAGES": '{"default": 7}'}, "^BLOBFERRY_STORAGES: storages: needs a section"),
        ({"BLOBFERRY_CONFIG": "/none.toml"}, "^BLOBFERRY_CONFIG: file /none.toml does not exist"),
        ({"BLOBFERRY_CONFIG": "/"}, "^BLOBFERRY_CONFIG: file / cannot be read"),
    ],
    ids=str,
)
def test_a_wrong_variable_is_named(variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Client.from_env({"BLOBFERRY_DATABASE_URL": NOWHERE} | variables)


def test_a_link_of_kubernetes_is_no_parameter() -> None:
    links = {"BLOBFERRY_STORAGES__X_SERVICE_HOST": "10.0.0.1", "BLOBFERRY_STORAGES__X_PORT": "tcp://10.0.0.1:80"}
    Client.from_env({"BLOBFERRY_DATABASE_URL": NOWHERE} | links).close()

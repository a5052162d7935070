"""url_for: a URL that allows one method on one blob until its time is up. Nobody looks whether the blob is there."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest

from dev.services import S3Service
from tests.doubles import RecordingStore
from tests.driver.blobs_and_readers import MakeDriver, data, put
from tests.driver.store_kinds import BUCKET, at_home, cases, on_servers
from tests.fetching import fetch
from tests.s3_stores import s3_store
from worker.driver import Driver
from worker.errors import InvalidRequestError, UnsupportedMethodError

pytestmark = pytest.mark.no_cover


def lifetime(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])


def in_time(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


@on_servers
@pytest.mark.parametrize("options", [None, {}, {"method": "GET"}], ids=str)
@pytest.mark.every_run_on("moto", "swift")
def test_a_url_gives_the_body(driver: Driver, options: dict[str, Any] | None) -> None:
    put(driver, "/a/b.c", data(5_000))
    assert fetch(driver.url_for("/a/b.c", options))[:2] == (200, data(5_000))


@on_servers
@pytest.mark.every_run_on("moto")
def test_a_url_for_head_gives_the_length(driver: Driver) -> None:
    put(driver, "/a", data(32))
    status, body, headers = fetch(driver.url_for("/a", {"method": "HEAD"}), "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", "32")


@on_servers
@pytest.mark.every_run_on("moto", "swift")
def test_a_url_for_get_does_not_allow_head(driver: Driver) -> None:
    put(driver, "/a", data(32))
    assert fetch(driver.url_for("/a", {"method": "GET"}), "HEAD")[0] == 403


@on_servers
@pytest.mark.every_run_on("swift")
def test_a_missing_path_is_signed_all_the_same(driver: Driver) -> None:
    assert fetch(driver.url_for("/missing"))[0] == 404


LIFETIMES: dict[str, tuple[timedelta | None, timezone, int]] = {
    "20 minutes": (None, UTC, 1_200),
    "7 days": (timedelta(days=7), UTC, 604_800),
    "an hour, UTC": (timedelta(hours=1), UTC, 3_600),
    "an hour, to the east": (timedelta(hours=1), timezone(timedelta(hours=5, minutes=30)), 3_600),
    "an hour, to the west": (timedelta(hours=1), timezone(timedelta(hours=-8)), 3_600),
}


@on_servers
@pytest.mark.parametrize(("delta", "zone", "seconds"), LIFETIMES.values(), ids=LIFETIMES)
@pytest.mark.every_run_on("moto")
@pytest.mark.every_run_on("swift", only="7 days")
def test_a_url_lives_for_20_minutes_or_up_to_a_time_in_any_zone(
    driver: Driver, delta: timedelta | None, zone: timezone, seconds: int
) -> None:
    options = {} if delta is None else {"expiry": (datetime.now(UTC) + delta).astimezone(zone)}
    url = driver.url_for("/a", options)
    assert seconds - (1 if delta is None else 10) <= lifetime(url) <= seconds
    assert (urlsplit(url).path.endswith(driver.key("/a")), "X-Amz-Signature" in url) == (True, True)


@on_servers
@pytest.mark.every_run_on("moto")
def test_method_and_expiry_go_together(driver: Driver) -> None:
    put(driver, "/a", data(32))
    url = driver.url_for("/a", {"method": "HEAD", "expiry": in_time(minutes=5)})
    assert fetch(url, "HEAD")[0] == 200
    assert lifetime(url) <= 300


@on_servers
@pytest.mark.every_run_on("moto")
def test_a_url_for_put_takes_the_bytes_that_a_browser_sends(driver: Driver) -> None:
    url = driver.url_for("/a/new", {"method": "PUT"})
    assert "checksum" not in url.lower()  # a browser computes none
    request = Request(url, b"of a browser", {"Content-Type": "text/plain"}, method="PUT")
    with urlopen(request) as answer:
        assert answer.status == 200
    assert driver.get_content("/a/new") == b"of a browser"


@on_servers
@pytest.mark.every_run_on("moto")
def test_a_url_names_the_download_and_its_type(driver: Driver) -> None:
    put(driver, "/a", data(32))
    disposition = 'attachment; filename="my video.mp4"'
    options = {"response-content-disposition": disposition, "response-content-type": "video/mp4"}
    status, body, headers = fetch(driver.url_for("/a", options))
    assert (status, body) == (200, data(32))
    assert (headers["content-disposition"], headers["content-type"]) == (disposition, "video/mp4")
    with pytest.raises(InvalidRequestError, match="only the answer to a GET can have it"):
        driver.url_for("/a", {"method": "PUT", **options})


METHODS = ["put", "POST", "DELETE", "get", "head", "Get", "", " GET", 5, b"GET", ["GET"]]


@cases("method", {"PATCH": "PATCH", "get": "get"}, {repr(method): method for method in METHODS})
@pytest.mark.every_run_on("local", "swift")
def test_other_methods_are_unsupported_and_no_request_is_sent(
    recorded: RecordingStore, on: MakeDriver, method: Any
) -> None:
    with pytest.raises(UnsupportedMethodError) as caught:
        on(recorded).url_for("/a", {"method": method})
    assert (caught.value.driver, recorded.calls) == (recorded.name, [])


EXPIRIES: dict[str, Callable[[], Any]] = {
    "naive": lambda: datetime.now() + timedelta(hours=1),  # noqa: DTZ005  that is the point
    "past": lambda: in_time(seconds=-1),
    "long past": lambda: in_time(days=-400),
    "too far": lambda: in_time(days=7, seconds=60),
    "much too far": lambda: datetime.max.replace(tzinfo=UTC),
    "a number": lambda: 3_600,
    "a duration": lambda: timedelta(hours=1),
    "text": lambda: "tomorrow",
}


@at_home
@pytest.mark.parametrize("expiry", EXPIRIES.values(), ids=EXPIRIES)
def test_an_expiry_that_cannot_be_used_is_refused_and_not_ignored(driver: Driver, expiry: Callable[[], Any]) -> None:
    with pytest.raises(InvalidRequestError, match="expiry"):
        driver.url_for("/a", {"expiry": expiry()})


def test_an_unknown_option_is_refused_and_not_ignored(driver: Driver) -> None:
    with pytest.raises(InvalidRequestError, match="expires"):
        driver.url_for("/a", {"expires": in_time(hours=1)})


@at_home
@pytest.mark.every_run_on("local")
def test_a_store_without_urls_says_that_it_has_none(driver: Driver, kind: str) -> None:
    with pytest.raises(UnsupportedMethodError) as caught:
        driver.url_for("/a")
    assert caught.value.driver == kind


PUBLIC = {
    "path style": ("https://files.example.com", True, "https://files.example.com/media/a/b.mp4"),
    "virtual host": ("https://files.example.com", False, "https://media.files.example.com/a/b.mp4"),
    "a port": ("https://files.example.com:8443", True, "https://files.example.com:8443/media/a/b.mp4"),
    "a port, virtual host": ("https://files.example.com:8443", False, "https://media.files.example.com:8443/a/b.mp4"),
    "a path": ("https://example.com/s3/", True, "https://example.com/s3/media/a/b.mp4"),
    "no scheme": ("files.example.com", True, "https://files.example.com/media/a/b.mp4"),
    "an address": ("http://192.0.2.1:9000", False, "http://192.0.2.1:9000/media/a/b.mp4"),
    "an IPv6 address": ("http://[2001:db8::1]:9000", True, "http://[2001:db8::1]:9000/media/a/b.mp4"),
}


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("private", ["http://minio:9000", ""], ids=["private endpoint", "aws"])
def test_urls_name_the_public_endpoint_in_the_asked_style(name: str, private: str) -> None:
    public, path_style, expected = PUBLIC[name]
    given = {"bucket": "media", "region": "us-east-1", "accesskey": "key", "secretkey": "secret"}
    given |= {"regionendpoint": private, "publicendpoint": public}
    url = Driver.from_parameters(given | {"forcepathstyle": path_style}).url_for("/a/b.mp4", {"method": "HEAD"})
    assert url.partition("?")[0] == expected
    assert "X-Amz-Signature" in url


@pytest.mark.parametrize("kind", ["swift"])  # which checks signatures
@pytest.mark.every_run_on("swift")
def test_only_urls_go_to_the_public_endpoint(driver: Driver, on: MakeDriver, service: S3Service) -> None:
    """Another name of the same server: what is signed for one is refused by a server that is asked by the other."""
    public = service.endpoint.replace("127.0.0.1", "localhost")
    store = s3_store(service, BUCKET, public_endpoint=public)
    put(driver, "/a", data(50))
    url = on(store).url_for("/a")
    assert url.startswith(public + "/")
    assert fetch(url)[:2] == (200, data(50))
    assert on(store).get_content("/a") == data(50)
    assert fetch(url.replace(public, service.endpoint))[0] == 403

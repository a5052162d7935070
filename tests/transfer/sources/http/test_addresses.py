"""Where http sources may lead: to public addresses, on every connection and after every redirect; certificates."""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout

from tests.transfer.bench import read
from tests.transfer.sources.http.http_site import (
    Listener,
    Site,
    drop_after,
    is_permanent,
    loopback,
    redirect,
    serving,
    status,
)
from worker.errors import SourceError, SourceNotAllowedError, SourceNotFoundError, SourceUnavailableError
from worker.settings import SourcesSettings
from worker.transfer.sources.http.addresses import PublicConnection, PublicTlsConnection, is_public
from worker.transfer.sources.http.http_client import HttpClient
from worker.transfer.sources.http.http_source import HttpSource

DATA = bytes(range(256))
BASIC = "Basic dXNlcjpwdw=="  #: user:pw

Get = Callable[..., bytes]


NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254
    168.63.129.16 169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1
    192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1
    255.255.255.255 :: ::1 ::10.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::10.0.0.1
    64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:db8::1
    2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
    169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
    2001:200::1 2001:4860:4860::8888 2003::1 2606:4700:4700::1111 2a00:1450:4001:80b::200e
"""


@pytest.mark.parametrize(
    ("address", "expected"), [(each, each in PUBLIC.split()) for each in (NOT_PUBLIC + PUBLIC).split()]
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(address) == expected


# --- nothing reaches a server that is not public ---------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[Listener]:
    with closing(Listener()) as listener:
        yield listener


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0"]
)
def test_a_host_that_is_not_public_is_not_even_connected_to(scheme: str, host: str, listener: Listener) -> None:
    with pytest.raises(SourceNotAllowedError) as caught:
        HttpSource.open(f"{scheme}://{host}:{listener.port}/a", SourcesSettings())
    listener.close()
    assert listener.heard == []
    assert host.lower() in str(caught.value)
    assert any(address in str(caught.value) for address in ("127.0.0.1", "::1", "0.0.0.0"))
    assert "http_allow_private" in str(caught.value)


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:127.0.0.1]", "[::]"])
def test_an_ipv6_host_that_is_not_public_is_refused(host: str) -> None:
    with pytest.raises(SourceNotAllowedError, match="no public address"):
        HttpSource.open(f"http://{host}:1/a", SourcesSettings())


class Rebinding:
    """A name that is public when it is looked at, and leads to loopback when it is connected to."""

    def _addresses(self) -> list[str]:
        return ["93.184.215.14"]

    def _connect(self, addresses: list[str]) -> socket.socket:
        assert isinstance(self, PublicConnection)
        return PublicConnection._connect(self, ["127.0.0.1"])


class RebindingConnection(Rebinding, PublicConnection):
    pass


class RebindingTlsConnection(Rebinding, PublicTlsConnection):
    pass


@pytest.mark.parametrize("kind", [RebindingConnection, RebindingTlsConnection])
def test_a_connection_that_ends_up_elsewhere_is_closed_before_a_byte_is_sent(
    kind: type[PublicConnection], listener: Listener
) -> None:
    connection = kind("example.org", listener.port, timeout=2)
    with pytest.raises(SourceNotAllowedError, match=r"example\.org: 127\.0\.0\.1 is no public address"):
        connection.request("GET", "/secret")
    connection.close()
    listener.close()
    assert listener.heard == [b""]


class Inside(PublicConnection):
    """Takes 127.0.0.1 for the internet; the rest of loopback is inside."""

    allows = staticmethod(lambda address: address == "127.0.0.1")


def test_a_name_with_a_public_address_beside_a_private_one_leads_to_the_public_one(listener: Listener) -> None:
    class Both(Inside):
        def _addresses(self) -> list[str]:
            return ["127.0.0.2", "127.0.0.1"]

    connection = Both("example.org", listener.port, timeout=2)
    connection.connect()
    assert connection.sock is not None
    assert connection.sock.getpeername()[0] == "127.0.0.1"
    connection.close()


def test_proxies_of_the_environment_are_not_used(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    with serving(DATA) as site:
        HttpSource.open(site.url, loopback()).close()
    with pytest.raises(SourceNotAllowedError):
        HttpSource.open("http://localhost/a", SourcesSettings())
    assert listener.heard == []


def test_a_public_host_that_refuses_or_is_silent_is_transient(get: Get) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = silent.getsockname()[1]
        for _ in range(4):  # nobody accepts them: the next one gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with pytest.raises(SourceUnavailableError, match=r"no connection to 127\.0\.0\.1 within 2 s") as caught:
            get(f"http://127.0.0.1:{port}/a")
    assert caught.value.transient
    with pytest.raises(SourceUnavailableError, match=r"no connection to 127\.0\.0\.1: .*refused"):
        get(f"http://127.0.0.1:{port}/a")


# --- redirects -------------------------------------------------------------------------------------------------------


class InsideTls(Inside, PublicTlsConnection):
    pass


class InsidePool(HTTPConnectionPool):
    ConnectionCls = Inside


class InsideTlsPool(HTTPSConnectionPool):
    ConnectionCls = InsideTls


@pytest.fixture
def get() -> Get:
    """Gets all of a URL with a client for which only 127.0.0.1 is public."""

    def get(url: str, max_redirects: int = 5) -> bytes:
        pools = PoolManager()
        pools.pool_classes_by_scheme = {"http": InsidePool, "https": InsideTlsPool}
        client = HttpClient(url, pools, timeout=Timeout(2), max_redirects=max_redirects)
        with closing(client), client.get({}) as response:
            return response.read()

    return get


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(DATA) as site:
        yield site


@pytest.fixture
def inside() -> Iterator[Site]:
    with serving(b"inside", address="127.0.0.2") as site:
        yield site


UTF_8 = "/ü".encode().decode("latin-1")  # as its bytes come out of a header


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("location", "path"), [("b/../c?d=%20e#f", "/c?d=%20e"), (UTF_8, "/%C3%BC")])
def test_redirects_are_followed(location: str, path: str, code: int, site: Site, get: Get) -> None:
    site.routes["/a"] = redirect(location, code)
    assert get(site.url + "/a") == DATA
    assert site.paths == ["/a", path]


@pytest.mark.parametrize("url", ["{0}/x", "//{1}/x", "http://user:pw@{1}/x"])
def test_a_redirect_to_an_address_inside_is_refused(url: str, site: Site, inside: Site, get: Get) -> None:
    site.routes["/a"] = redirect("/b")
    site.routes["/b"] = redirect(url.format(inside.url, inside.url.removeprefix("http://")))
    with pytest.raises(SourceNotAllowedError, match=r"127\.0\.0\.2"):
        get(site.url + "/a")
    assert inside.requests == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(location: str, site: Site, get: Get) -> None:
    site.routes["/a"] = redirect(location)
    with pytest.raises(SourceNotAllowedError, match="neither an http nor an https URL"):
        get(site.url + "/a")


@pytest.mark.parametrize("location", ["", "http://", "http://[::1/", "http://host:port/", "http://a:99999/"])
def test_a_redirect_to_nowhere_is_an_error(location: str, site: Site, get: Get) -> None:
    site.routes["/a"] = redirect(location)
    with pytest.raises(SourceError, check=is_permanent):
        get(site.url + "/a")


def test_redirects_are_followed_so_many_times(site: Site, get: Get) -> None:
    site.routes.update({f"/{number}": redirect(f"/{number + 1}") for number in range(5)})
    assert get(site.url + "/0") == DATA
    with pytest.raises(SourceError, match="more than 4 times"):
        get(site.url + "/0", max_redirects=4)


def test_a_loop_of_redirects_ends(site: Site, get: Get) -> None:
    site.routes["/a"] = redirect("/a")
    with pytest.raises(SourceError, match="more than 5 times", check=is_permanent):
        get(site.url + "/a")
    assert len(site.requests) == 6


def test_credentials_go_to_their_own_host_only(site: Site, get: Get) -> None:
    with serving(DATA) as other:
        site.routes.update({"/a": redirect("/b"), "/b": redirect(other.url + "/c")})
        other.routes["/c"] = redirect(site.url + "/d")
        assert get(site.url.replace("://", "://user:pw@") + "/a") == DATA
    assert (site.asked("Authorization"), other.asked("Authorization")) == ([BASIC, BASIC, None], [None])


def test_what_has_been_redirected_goes_straight_to_its_target_until_that_refuses(site: Site) -> None:
    first, second = "/signed?until=1", "/signed?until=2"
    site.routes["/a"] = redirect(first)
    with closing(HttpSource.open(site.url + "/a", loopback())) as source:
        read(source, 0, 10)
        site.routes.update({"/a": redirect(second), first: status(403)})
        assert read(source, 5, 10) == DATA[5:15]
        source.check()
        site.routes.update({"/a": status(403), second: status(403)})
        with pytest.raises(SourceNotAllowedError, match="403"):
            source.check()
    assert site.paths == ["/a", first, first, first, "/a", second, second, second, "/a"]
    assert site.asked("Range")[5] == "bytes=5-14"


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key, valid today."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


def write_certificate(path: Path, *, name: str = "localhost", days: int = 1) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def secure(certificate: Path) -> Iterator[Site]:
    with serving(DATA, host="localhost", tls=tls(certificate)) as site:
        yield site


def test_https_works_with_a_trusted_certificate(certificate: Path, secure: Site) -> None:
    with closing(HttpSource.open(secure.url + "/a", loopback(http_ca_file=certificate))) as source:
        secure.script.append(drop_after(100))
        assert read(source, 0, 256) == DATA


@pytest.mark.parametrize(
    ("days", "host", "is_signed"),
    [(1, "localhost", False), (1, "127.0.0.1", True), (-1, "localhost", True)],
    ids=["nobody signed it", "another host", "expired"],
)
def test_a_certificate_that_is_not_trusted_is_a_permanent_error(
    days: int, host: str, is_signed: bool, tmp_path: Path
) -> None:
    shown = write_certificate(tmp_path / "shown.pem", days=days)
    with serving(DATA, host=host, tls=tls(shown)) as site:
        with pytest.raises(SourceError, match="certificate is not trusted") as caught:
            HttpSource.open(site.url + "/a?secret", loopback(http_ca_file=shown if is_signed else None))
        assert site.requests == []
    assert type(caught.value) is SourceError
    assert "secret" not in str(caught.value)


def test_plain_http_where_tls_is_expected_is_an_error(site: Site) -> None:
    with pytest.raises(SourceUnavailableError):
        HttpSource.open(site.url.replace("http:", "https:"), loopback())


def test_a_redirect_from_https_to_http_is_refused(certificate: Path, secure: Site, site: Site) -> None:
    secure.routes["/a"] = redirect(site.url + "/b?secret")
    with pytest.raises(SourceNotAllowedError, match="from https to http") as caught:
        HttpSource.open(secure.url + "/a", loopback(http_ca_file=certificate))
    assert "secret" not in str(caught.value)
    assert site.requests == []


def test_a_redirect_to_https_is_followed_without_the_credentials_of_another_port(
    certificate: Path, secure: Site, site: Site
) -> None:
    site.routes["/a"] = redirect(secure.url + "/b")
    url = site.url.replace("://127.0.0.1", "://user:pw@localhost") + "/a"
    HttpSource.open(url, loopback(http_ca_file=certificate)).close()
    assert (secure.asked("Authorization"), site.asked("Authorization")) == ([None], [BASIC])


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "host/a", "http://", "http:///pw", "http://host:pw/", "http://[::1/pw", "ftp://u:pw@h/"]
)
def test_a_url_that_is_none_of_http_is_refused(url: str) -> None:
    with pytest.raises(SourceError, check=is_permanent) as caught:
        HttpSource.open(url, loopback())
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("allow_private", [True, False])
def test_a_label_that_is_too_long_is_a_permanent_error(allow_private: bool) -> None:
    with pytest.raises(SourceError, match="malformed", check=is_permanent):
        HttpSource.open(f"http://{'a' * 64}.example/", SourcesSettings(http_allow_private=allow_private))


def test_a_query_reaches_the_server_as_it_is(site: Site) -> None:
    query = "/a%2Fb/c+d?X-Amz-Credential=AK%2F20260101%2Feu&X-Amz-Signature=0aF&x=a+b%20c&y=~!*'()"
    HttpSource.open(site.url + query, loopback()).close()
    assert site.paths == [query]


def test_not_found_is_not_found(site: Site, get: Get) -> None:
    site.routes.update({"/a": redirect("/b"), "/b": status(404)})
    with pytest.raises(SourceNotFoundError):
        get(site.url + "/a")

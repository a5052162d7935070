"""What the operator refuses: networks and ports, however an address is written and wherever a redirect leads."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from tests.transfer.sources.http.http_site import Listener, loopback, redirect, serving
from worker.errors import SourceNotAllowedError
from worker.settings import SourcesSettings
from worker.transfer.sources.http.http_source import HttpSource
from worker.transfer.sources.http.refused_addresses import RefusedAddresses


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.mark.parametrize(
    ("network", "address", "is_refused"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "64:ff9b::10.1.2.3", True),
        ("10.0.0.0/8", "2002:a01:203::1", True),
        ("10.0.0.0/8", "::10.1.2.3", True),
        ("65.54.227.120", "2001:0:4136:e378:8000:63bf:3fff:fdd2", True),  # the server of a Teredo address
        ("192.0.2.45", "2001:0:4136:e378:8000:63bf:3fff:fdd2", True),  # and its client
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "8.8.8.8", True),
        ("::/0", "8.8.8.8", False),
    ],
)
def test_an_address_is_refused_in_whatever_form_it_comes(network: str, address: str, is_refused: bool) -> None:
    assert RefusedAddresses((ip_network(network),)).has(address) is is_refused


@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_address_is_not_even_connected_to(scheme: str, allow_private: bool, listener: Listener) -> None:
    settings = loopback(http_allow_private=allow_private, http_refuse=("127.0.0.0/8",))
    with pytest.raises(SourceNotAllowedError, match=r"http_refuse" if allow_private else "no public address"):
        HttpSource.open(f"{scheme}://127.0.0.1:{listener.port}/a", settings)
    listener.close()
    assert listener.heard == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_port_is_not_even_connected_to(scheme: str, listener: Listener) -> None:
    settings = loopback(http_refuse_ports=(listener.port,))
    with pytest.raises(SourceNotAllowedError, match=f"port {listener.port} is refused by sources.http_refuse_ports"):
        HttpSource.open(f"{scheme}://127.0.0.1:{listener.port}/a", settings)
    listener.close()
    assert listener.heard == []


def test_a_redirect_to_a_refused_port_is_not_followed_and_others_are_read(listener: Listener) -> None:
    with serving(b"here") as site:
        settings = loopback(http_refuse=("2001:db8::/32", "10.0.0.0/8"), http_refuse_ports=(listener.port,))
        source = HttpSource.open(site.url, settings)
        assert source.size == 4
        source.close()
        site.routes["/away"] = redirect(f"http://127.0.0.1:{listener.port}/a")
        with pytest.raises(SourceNotAllowedError, match="http_refuse_ports"):
            HttpSource.open(site.url + "/away", settings)
    listener.close()
    assert listener.heard == []


@pytest.mark.parametrize(
    "settings", [{"http_refuse": ["10.0.0.1/8"]}, {"http_refuse": ["host"]}, {"http_refuse_ports": [0]}]
)
def test_what_is_no_network_or_port_is_refused(settings: dict[str, list[object]]) -> None:
    with pytest.raises(ValidationError):
        SourcesSettings(**settings)  # type: ignore[arg-type]

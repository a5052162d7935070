"""Where an ``http(s):`` source or a webhook may lead: connections to public addresses, which refuse all others.

The check is on the address that the socket is connected to, before a byte of the request or of a TLS handshake is sent,
so a name that resolves differently the second time gains nothing. Addresses are also checked before connecting, so that
our errors do not reveal what listens inside. No proxy is used: it would connect to addresses that we cannot check.
"""

import socket
import ssl
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NewConnectionError
from urllib3.util.connection import create_connection

from worker.errors import ConfigurationError, SourceNotAllowedError
from worker.transfer.sources.http.refused_addresses import RefusedAddresses, refused_here
from worker.transfer.sources.http.response_head import WholeHeadResponse

#: Source: IANA IPv4 Special-Purpose Address Registry, and the address of Azure's metadata service.
_REFUSED_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure
            "169.254.0.0/16",  # link-local; most metadata services
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
#: Outside of it are loopback, private, link-local, multicast, IPv4-mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96).
_UNICAST_V6: Final = IPv6Network("2000::/3")
#: Source: IANA IPv6 Special-Purpose Address Registry. 2001::/23 contains Teredo; it and 6to4 lead to IPv4 addresses.
_REFUSED_V6: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))

#: Addresses of a name that are tried; it may have hundreds, and each may be waited for.
MOST_ADDRESSES: Final = 8

_IDLE: Final = 64  #: connections kept for the next request: as many as there can be part threads


def is_public(address: str) -> bool:
    """True if the numeric IPv4 or IPv6 address belongs to the public internet."""
    found = ip_address(address.partition("%")[0])
    if found.version == 4:
        return not any(found in network for network in _REFUSED_V4)
    return found in _UNICAST_V6 and not any(found in network for network in _REFUSED_V6)


def connection_pools(
    *, allow_private: bool, ca_file: Path | None, refused: RefusedAddresses | None = None
) -> PoolManager:
    """Make pools that trust the system's certificate authorities and those of ``ca_file``.

    Raises ConfigurationError if that file is missing or holds none.
    """
    rules = RefusedAddresses() if refused is None else refused
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # an SSLError is one
            raise ConfigurationError(f"{rules.prefix}ca_file", f"{ca_file}: {error}") from error
    pools = PoolManager(num_pools=8, maxsize=_IDLE, block=False, ssl_context=context)
    if rules or rules.prefix != PublicConnection.refused.prefix:
        pools.pool_classes_by_scheme = _filtered_pools(rules, allow_private=allow_private)
    elif allow_private:
        pools.pool_classes_by_scheme = {"http": _AnyPool, "https": _AnyTlsPool}
    else:
        pools.pool_classes_by_scheme = {"http": _PublicPool, "https": _PublicTlsPool}
    return pools


class _AnyConnection(HTTPConnection):
    response_class = WholeHeadResponse


class _AnyTlsConnection(HTTPSConnection):
    response_class = WholeHeadResponse


class PublicConnection(HTTPConnection):
    """A connection to a public address."""

    response_class = WholeHeadResponse
    allows = staticmethod(is_public)
    refused = RefusedAddresses()

    def _new_conn(self) -> socket.socket:
        """Connect to the first public address that answers. Raises SourceNotAllowedError if there is no public one."""
        self.refused.check_port(self.host, self.port)
        connected = self._connect(self._allowed(self._addresses()))
        try:
            self._allowed([connected.getpeername()[0]])
        except BaseException:
            connected.close()
            raise
        return connected

    def _allowed(self, addresses: list[str]) -> list[str]:
        """The addresses that may be connected to. Raises SourceNotAllowedError if there is none."""
        public = [address for address in addresses if self.allows(address)]
        if not public:
            raise _refusal(self.refused.prefix, self.host, *addresses)
        if allowed := [address for address in public if not self.refused.has(address)]:
            return allowed
        raise refused_here(f"{self.host}: {', '.join(public)} is refused by {self.refused.prefix}refuse")

    def _addresses(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise LocationParseError(self.host) from error
        except OSError as error:
            raise NewConnectionError(self, f"no address of {self.host} found: {error}") from error
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def _connect(self, addresses: list[str]) -> socket.socket:
        for address in addresses[:MOST_ADDRESSES]:
            try:
                return create_connection((address, self.port), self.timeout, socket_options=self.socket_options)
            except TimeoutError as error:
                failure: Exception = error
                shown = ConnectTimeoutError(self, f"no connection to {self.host} within {self.timeout} s")
            except OSError as error:
                failure = error
                shown = NewConnectionError(self, f"no connection to {self.host}: {error}")
        raise shown from failure


class PublicTlsConnection(PublicConnection, HTTPSConnection):
    """A TLS connection to a public address; the handshake begins after the address was checked."""


class _AnyPool(HTTPConnectionPool):
    ConnectionCls = _AnyConnection


class _AnyTlsPool(HTTPSConnectionPool):
    ConnectionCls = _AnyTlsConnection


class _PublicPool(HTTPConnectionPool):
    ConnectionCls = PublicConnection


class _PublicTlsPool(HTTPSConnectionPool):
    ConnectionCls = PublicTlsConnection


def _filtered_pools(refused: RefusedAddresses, *, allow_private: bool) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections know what is refused: urllib3 hands a pool's connections no values of our own."""
    rules = {"refused": refused} | ({"allows": staticmethod(lambda address: True)} if allow_private else {})
    plain, tls = (type(kind.__name__, (kind,), rules) for kind in (PublicConnection, PublicTlsConnection))
    return {
        "http": type("_FilteredPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("_FilteredTlsPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }


def _refusal(prefix: str, host: str, *addresses: str) -> SourceNotAllowedError:
    shown = ", ".join(addresses)
    return refused_here(f"{host}: {shown} is no public address ({prefix}allow_private would allow it)")

"""Addresses and ports that the operator refuses to http sources or webhooks, besides those that are not public."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from blobferry.jobs.needs import SOURCES
from worker.errors import SourceNotAllowedError

_NAT64: Final = IPv6Network("64:ff9b::/96")  # source: RFC 6052, 2.1


@dataclass(frozen=True, slots=True)
class RefusedAddresses:
    """The settings ``sources.http_refuse`` and ``sources.http_refuse_ports``, or those of another section."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    ports: frozenset[int] = frozenset()
    prefix: str = "sources.http_"  #: of the names of these settings

    def __bool__(self) -> bool:
        return bool(self.networks or self.ports)

    def has(self, address: str) -> bool:
        """Whether the numeric address, or the IPv4 address that it leads to, is in one of the networks."""
        return any(form in network for form in _forms(address) for network in self.networks)

    def check_port(self, host: str, port: int | None) -> None:
        """Raise SourceNotAllowedError for a refused port."""
        if port in self.ports:
            raise refused_here(f"{host}: port {port} is refused by {self.prefix}refuse_ports")


def refused_here(problem: str) -> SourceNotAllowedError:
    """The error of a source that the settings of this worker refuse; those of another may allow it."""
    refused = SourceNotAllowedError(problem)
    refused.lacks = SOURCES
    return refused


def _forms(address: str) -> Iterator[IPv4Address | IPv6Address]:
    found = ip_address(address.partition("%")[0])
    yield found
    if isinstance(found, IPv6Address):
        embedded = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in _NAT64 or int(found) < 1 << 32:
            embedded.append(IPv4Address(int(found) & 0xFFFF_FFFF))
        yield from (form for form in embedded if form is not None)

"""Hosts on this machine, each in a network namespace of its own, to be cut off from services and joined again.

Every service has an address on a switch of its own (a bridge), every host a cable into each switch. A switch whose port
is closed drops all packets: no connection is reset, both ends fall silent, as when the network
between two machines fails. Needs root. Names hold the process id, so that two runs do not meet and what a run that was
killed has left behind is found by the next.
"""

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psutil

__all__ = ["SERVICES", "Host", "Network", "may_make_networks", "network"]

SERVICES: Final = ("broker", "database", "store")
#: For tests between devices, on no real network: three switches of 14 addresses in one of its /24. Source: RFC 2544.
BLOCK: Final = "198.18"
SWITCH_SIZE: Final = 16
PORT_STATES: Final = {True: "3", False: "0"}  #: forwarding, disabled. Source: bridge(8)
OURS: Final = re.compile(r"bf(\d+)-.+")
#: The namespace keeps its processes' ids and files, and has its own host name, which workers are known by.
NAMED: Final = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


@dataclass(frozen=True, slots=True)
class Host:
    """A host. Its processes are started with ``prefix`` before their command."""

    name: str
    index: int

    @property
    def namespace(self) -> str:
        """The name of its network namespace."""
        return f"{_prefix(os.getpid())}{self.name}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command on this host, under the process id that it is started with."""
        return ("ip", "netns", "exec", self.namespace, *NAMED, self.name)

    def cut(self, *services: str) -> None:
        """Lose everything between this host and the services, by default all. Safe to repeat."""
        self._set_ports(services, passes=False)

    def join(self, *services: str) -> None:
        """Let everything pass again. Safe to repeat."""
        self._set_ports(services, passes=True)

    def _set_ports(self, services: Sequence[str], *, passes: bool) -> None:
        for service in services or SERVICES:
            _run("bridge", "link", "set", "dev", self.port(service), "state", PORT_STATES[passes])

    def port(self, service: str) -> str:
        """The port of the service's switch that this host's cable is in."""
        return f"{_switch(service)}{self.index}"


@dataclass(frozen=True, slots=True)
class Network:
    """Switches and hosts."""

    subnet: str  #: the first three bytes of all addresses
    hosts: tuple[Host, ...]

    def address(self, service: str) -> str:
        """Where the service is to listen; only this machine and the hosts can reach it."""
        return self._address(service, 0)

    def address_of(self, host: Host, service: str) -> str:
        """What the service sees the host as."""
        return self._address(service, host.index)

    def _address(self, service: str, index: int) -> str:
        return f"{self.subnet}.{SERVICES.index(service) * SWITCH_SIZE + 1 + index}"

    def make(self) -> None:
        """Make everything."""
        for service in SERVICES:
            switch = _switch(service)
            _ip("link", "add", switch, "address", _hardware(0), "type", "bridge", "forward_delay", "0")
            _ip("address", "add", f"{self.address(service)}/28", "dev", switch)
            _ip("link", "set", switch, "up")
        for host in self.hosts:
            _ip("netns", "add", host.namespace)
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            for service in SERVICES:
                self._plug(host, service)

    def _plug(self, host: Host, service: str) -> None:
        inside, port, switch = ("-n", host.namespace), host.port(service), _switch(service)
        there, here = self.address_of(host, service), self.address(service)
        _ip("link", "add", port, "type", "veth", "peer", "name", service, "netns", host.namespace)
        _ip("link", "set", port, "master", switch, "up")
        _ip(*inside, "link", "set", service, "address", _hardware(host.index), "up")
        _ip(*inside, "address", "add", f"{there}/28", "dev", service)
        # Permanent: a failed ARP would tell a sender within seconds that the host is gone, which no router does.
        _ip(*inside, "neighbour", "replace", here, "lladdr", _hardware(0), "dev", service, "nud", "permanent")
        _ip("neighbour", "replace", there, "lladdr", _hardware(host.index), "dev", switch, "nud", "permanent")


def may_make_networks() -> bool:
    """Whether this process may make namespaces, cables and switches: root, with the programs, on such a kernel."""
    name = f"{_prefix(os.getpid())}try"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", name, "type", "bridge")
        _ip("link", "add", f"{name}0", "type", "veth", "peer", "name", "try", "netns", name)
        _run("bridge", "link", "show")
        _run("ip", "netns", "exec", name, *NAMED, "try", "true")
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        _remove(name)
    return True


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network of hosts with these names; one at a time in a process. End first what runs on them."""
    for owner in _owners():
        if not psutil.pid_exists(owner):
            _remove(_prefix(owner))
    hosts = tuple(Host(name, index) for index, name in enumerate(names, start=1))
    made = Network(_free_subnet(), hosts)
    try:
        made.make()
        yield made
    finally:
        _remove(_prefix(os.getpid()))


def _prefix(owner: int) -> str:
    """What the names of a run begin with."""
    return f"bf{owner}-"


def _switch(service: str) -> str:
    return f"{_prefix(os.getpid())}{service[0]}"  # 15 characters are all that a device's name may have


def _hardware(index: int) -> str:
    return f"02:00:00:00:00:{index:02x}"


def _free_subnet() -> str:
    addresses = json.loads(_run("ip", "-json", "address", "show"))
    taken = {found["local"].rpartition(".")[0] for device in addresses for found in device["addr_info"]}
    return random.choice([subnet for byte in range(256) if (subnet := f"{BLOCK}.{byte}") not in taken])


def _owners() -> set[int]:
    names = [str(found["name"]) for found in _namespaces()] + [str(found["ifname"]) for found in _devices()]
    return {int(match[1]) for name in names if (match := OURS.fullmatch(name))}


def _remove(prefix: str) -> None:
    """Everything whose name begins so, and what still runs on such hosts."""
    for name in [str(found["name"]) for found in _namespaces()]:
        if name.startswith(prefix):
            for pid in _run("ip", "netns", "pids", name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            _ip("netns", "delete", name)
    for name in [str(found["ifname"]) for found in _devices()]:
        if name.startswith(prefix):
            with suppress(subprocess.CalledProcessError):  # a cable goes with its other end, a moment later
                _ip("link", "delete", name)


def _namespaces() -> list[Any]:
    with suppress(OSError, subprocess.CalledProcessError):
        return list(json.loads(_run("ip", "-json", "netns", "list") or "[]"))
    return []


def _devices() -> list[Any]:
    with suppress(OSError, subprocess.CalledProcessError):
        return list(json.loads(_run("ip", "-json", "link", "show") or "[]"))
    return []


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout

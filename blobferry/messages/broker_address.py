"""Where a broker or result backend is: its URL and ``[broker]`` settings, as Celery's configuration needs them."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from blobferry.errors import ConfigurationError

#: Seconds until a sentinel counts as away.
SENTINEL_TIMEOUTS: Final = {"socket_timeout": 1.2, "socket_connect_timeout": 1.2}
_SCHEMES: Final[Mapping[str, str]] = {"valkey": "redis", "valkeys": "rediss"}
CLUSTER: Final = (
    "Redis Cluster cannot be the broker, as Celery needs all keys on one server; name a single server (redis://), "
    "or sentinels (sentinel://)"
)
_CHECKS: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """What the URL of a broker does not say."""

    master_name: str = ""  #: of the server that the sentinels of a ``sentinel://`` URL watch
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    tls: bool = False  #: whether sentinels and their server speak TLS; ``rediss://`` does without this
    ca_file: str = ""  #: certificate authorities to trust instead of the system's
    cert_file: str = ""  #: of a client certificate
    key_file: str = ""


def options_of(environ: Mapping[str, str]) -> BrokerOptions:
    """The options in the worker's variables, ``BLOBFERRY_BROKER__MASTER_NAME`` and so on."""
    values = {each.name: environ.get(f"BLOBFERRY_BROKER__{each.name.upper()}", "") for each in fields(BrokerOptions)}
    tls = values.pop("tls").lower() in ("true", "1", "yes", "on")
    return BrokerOptions(tls=tls, **values)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A URL that kombu and Celery understand, with what they take beside it."""

    url: str = field(repr=False)
    tls: Mapping[str, Any] | None = None  #: ``broker_use_ssl``
    transport_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def broker_address(url: str, options: BrokerOptions | None = None, *, setting: str = "broker_url") -> BrokerAddress:
    """The address that a URL and the options mean. Raises ConfigurationError, without a password in its text.

    Args:
        url: ``redis://``, ``rediss://``, ``sentinel://host;host/db`` or any other of kombu's.
        options: the ``[broker]`` settings.
        setting: names the URL in errors.
    """
    options = options or BrokerOptions()
    scheme, _, rest = url.strip().partition("://")
    scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
    if "cluster" in scheme:
        raise ConfigurationError(setting, CLUSTER)
    if scheme == "sentinel":
        return _sentinels(rest, options, setting)
    if scheme not in ("redis", "rediss"):
        return BrokerAddress(url.strip())
    if "," in urlsplit(f"http://{rest}").netloc.rpartition("@")[2]:
        raise ConfigurationError(setting, f"names several servers; {CLUSTER}")
    if scheme == "redis":
        if options.ca_file or options.tls:
            raise ConfigurationError(setting, "begins with redis://, so broker.ca_file and broker.tls need rediss://")
        return BrokerAddress(f"redis://{rest}")
    base, _, query = rest.partition("?")
    given = dict(parse_qsl(query))
    tls = _tls(options, {name: given.pop(name) for name in list(given) if name.startswith("ssl_")}, setting)
    return BrokerAddress(f"rediss://{base}" + (f"?{urlencode(given)}" if given else ""), tls)


def _sentinels(rest: str, options: BrokerOptions, setting: str) -> BrokerAddress:
    rest, _, query = rest.partition("?")
    given = dict(parse_qsl(query))
    master_name = given.pop("master_name", "") or options.master_name
    if not master_name:
        problem = "is missing; give the name of the server that the sentinels of a sentinel:// URL watch"
        raise ConfigurationError("broker.master_name", problem)
    tls_given = {name: given.pop(name) for name in list(given) if name.startswith("ssl_")}
    if given:
        known = "master_name and ssl_…; see the settings of [broker]"
        raise ConfigurationError(setting, f"unknown parameter {min(given)} of sentinel://; known: {known}")
    account, database, hosts = "", "", list[str]()
    for part in rest.replace(",", ";").removesuffix(";").split(";"):
        where, _, path = part.strip().removeprefix("sentinel://").partition("/")
        found, _, host = where.rpartition("@")
        account, database = account or found, database or path
        hosts.append(host if ":" in host.rpartition("]")[2] else f"{host}:26379")
    tls = _tls(options, tls_given, setting) if options.tls or tls_given or options.ca_file else None
    sentinel = {**SENTINEL_TIMEOUTS, **({"ssl": True, **tls} if tls else {})}
    if options.sentinel_password:
        sentinel.update(username=options.sentinel_username or None, password=options.sentinel_password)
    prefix = f"{account}@" if account else ""
    return BrokerAddress(
        ";".join(f"sentinel://{prefix}{host}/{database or 0}" for host in hosts),
        tls,
        {"master_name": master_name, "sentinel_kwargs": sentinel},
    )


def _tls(options: BrokerOptions, given: Mapping[str, str], setting: str) -> Mapping[str, Any]:
    """Verifies the server's certificate and name unless the URL says otherwise; the URL's parameters come first."""
    wanted = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if wanted not in _CHECKS:
        raise ConfigurationError(setting, f"ssl_cert_reqs is not one of {', '.join(_CHECKS)}")
    files = {
        "ssl_ca_certs": given.get("ssl_ca_certs") or options.ca_file,
        "ssl_certfile": given.get("ssl_certfile") or options.cert_file,
        "ssl_keyfile": given.get("ssl_keyfile") or options.key_file,
    }
    for name, path in files.items():
        if path and not Path(path).is_file():
            raise ConfigurationError(setting, f"{name}: file {path} does not exist")
    checks_name = wanted != "none" and given.get("ssl_check_hostname", "true").lower() != "false"
    found = {name: path for name, path in files.items() if path}
    return {"ssl_cert_reqs": _CHECKS[wanted], "ssl_check_hostname": checks_name, **found}

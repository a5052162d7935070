"""Opens the store that driver parameters describe. The one registry of stores: ``driver = "name"`` to constructor."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.parameters import STORE_NAMES, DriverParameters
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.providers import CAPABILITY_SETTINGS, known_store
from worker.stores.s3.s3_access import S3Access
from worker.stores.s3.s3_store import S3Store
from worker.stores.store import Store

Constructor = Callable[[DriverParameters, int], Store]
"""Makes a store from parameters, for up to so many requests at once. Sends no request."""


def open_store(parameters: DriverParameters, *, connections: int) -> Store:
    """The store, for up to ``connections`` requests at once. Sends no request. Raises ConfigurationError."""
    return _CONSTRUCTORS[parameters.driver](parameters, connections)


def register_store(name: str, constructor: Constructor) -> None:
    """Make ``driver = "name"`` open a store of this kind. Call it before settings or parameters are read."""
    _CONSTRUCTORS[name] = constructor
    STORE_NAMES.add(name)


def _s3_store(parameters: DriverParameters, connections: int) -> Store:
    def reveal(name: str) -> str | None:
        secret = getattr(parameters, name)
        return None if secret is None else secret.get_secret_value()

    proxies = parameters.proxies
    access = S3Access(
        region=parameters.region,
        endpoint=parameters.regionendpoint,
        public_endpoint=parameters.publicendpoint,
        identity=parameters.identity,
        access_key=reveal("accesskey"),
        secret_key=reveal("secretkey"),
        session_token=reveal("sessiontoken"),
        path_style=parameters.forcepathstyle,
        secure=parameters.secure,
        # AWS accepts unsigned bodies over TLS only, compatible stores accept them over plain HTTP as well.
        sign_payload=not parameters.secure and not parameters.regionendpoint,
        profile=parameters.profile,
        ca_file=parameters.ca_file,
        verify=parameters.verify,
        proxies=None if proxies is None else {scheme: url.get_secret_value() for scheme, url in proxies.items()},
        max_pool_connections=parameters.max_pool_connections or connections,
    )
    known = known_store(
        parameters.provider,
        settings={name: getattr(parameters, name) for name in CAPABILITY_SETTINGS},
        part_sizes=parameters.part_sizes,
        max_parts=parameters.max_parts,
    )
    return S3Store(
        access,
        parameters.bucket,
        checksum=parameters.checksum,
        encrypt=parameters.encrypt,
        keyid=parameters.keyid,
        storageclass=parameters.storageclass,
        acl=parameters.acl,
        limits=known.limits,
        missing=known.missing,
        confirmed=known.confirmed,
    )


def _local_store(parameters: DriverParameters, connections: int) -> Store:
    store = LocalStore(Path(parameters.rootdirectory), checksum=parameters.checksum)
    store.identity = parameters.identity or store.identity
    return store


def _memory_store(parameters: DriverParameters, connections: int) -> Store:
    return MemoryStore(checksum=parameters.checksum)


_CONSTRUCTORS: Final[dict[str, Constructor]] = {"s3": _s3_store, "local": _local_store, "memory": _memory_store}

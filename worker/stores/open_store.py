"""Which store the driver parameters describe."""

from pathlib import Path

from worker.parameters import DriverParameters
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.s3_client import S3Access
from worker.stores.s3.s3_store import S3Store
from worker.stores.store import Store


def open_store(parameters: DriverParameters, *, connections: int) -> Store:
    """The store, for up to ``connections`` requests at once. Sends no request."""
    match parameters.driver:
        case "s3":
            return _s3_store(parameters, connections)
        case "local":
            return LocalStore(Path(parameters.rootdirectory), checksum=parameters.checksum)
        case "memory":
            return MemoryStore(checksum=parameters.checksum)


def _s3_store(parameters: DriverParameters, connections: int) -> S3Store:
    def reveal(name: str) -> str | None:
        secret = getattr(parameters, name)
        return None if secret is None else secret.get_secret_value()

    access = S3Access(
        region=parameters.region,
        endpoint=parameters.regionendpoint,
        access_key=reveal("accesskey"),
        secret_key=reveal("secretkey"),
        session_token=reveal("sessiontoken"),
        path_style=parameters.forcepathstyle,
        secure=parameters.secure,
        # AWS takes unsigned bodies over TLS only; compatible stores take them anywhere.
        sign_payload=not parameters.secure and not parameters.regionendpoint,
        max_pool_connections=connections,
    )
    return S3Store(
        access,
        parameters.bucket,
        checksum=parameters.checksum,
        encrypt=parameters.encrypt,
        keyid=parameters.keyid,
        storageclass=parameters.storageclass,
    )

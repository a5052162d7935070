"""S3 stores for tests: on a running service, or at any address."""

from dataclasses import fields
from typing import Any

from dev.services import S3Service
from worker.stores.s3.s3_store import S3Access, S3Store

_ACCESS_FIELDS = {field.name for field in fields(S3Access)}


def s3_store(service: S3Service | str, bucket: str = "bucket", **settings: Any) -> S3Store:
    """A store on a bucket of the service, or of the server at an endpoint, which each request is sent to only once.

    ``settings`` are those of S3Access and of S3Store.
    """
    access: dict[str, Any] = {"region": "us-east-1", "path_style": True}
    if isinstance(service, str):
        access |= {"endpoint": service, "access_key": "AKIDTEST", "secret_key": "s3cr3t-test", "max_attempts": 1}
    else:
        access |= {name: getattr(service, name) for name in ("region", "endpoint", "access_key", "secret_key")}
    access |= {name: settings.pop(name) for name in _ACCESS_FIELDS & settings.keys()}
    return S3Store(S3Access(**access), bucket, **settings)

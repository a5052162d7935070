"""S3 stores for tests: on a running service, or at any address."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from dev.proxies.quirk_proxy import quirk_proxy
from dev.services import S3Service, moto
from dev.zoo import PROFILES
from worker.stores.s3.s3_store import S3Access, S3Store

_ACCESS_FIELDS = {field.name for field in fields(S3Access)}


@dataclass(frozen=True, kw_only=True)
class ServiceOfTheZoo(S3Service):
    """A service behind a proxy; what tests ask it for themselves goes past that."""

    upstream: S3Service

    def client(self) -> Any:
        return self.upstream.client()


@contextmanager
def moto_of_the_zoo(**settings: Any) -> Iterator[S3Service]:
    """moto; behind the profile that ``ZOO_PROFILE`` names, if it names one: see ``make test-zoo``."""
    profile = os.environ.get("ZOO_PROFILE")
    with moto(**settings) as service:
        if not profile:
            yield service
            return
        with quirk_proxy(service.endpoint, PROFILES[profile].rules()) as proxy:
            values = {field.name: getattr(service, field.name) for field in fields(service)}
            yield ServiceOfTheZoo(**values | {"endpoint": proxy.endpoint}, upstream=service)


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

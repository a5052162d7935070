"""What the suites do on a store of the zoo: drivers go through its proxy, and the tests' own calls do not.

A store by itself repeats nothing. So where it is tested bare, what the zoo refuses for a moment is asked for again.
"""

import sys
from typing import Any, Final

from dev.services import S3Service
from tests.doubles import PUBLISHING, WrappedStore
from tests.s3_stores import ServiceOfTheZoo, s3_store
from worker.errors import SlowDownError, StoreError, StoreUnavailableError
from worker.stores.store import Store

_TRIES: Final = 4


def split_store(service: S3Service, bucket: str, **settings: Any) -> Store:
    """The store of a suite whose subject are drivers."""
    store = s3_store(service, bucket, **settings)
    if isinstance(service, ServiceOfTheZoo):
        return SplitStore(store, s3_store(service.upstream, bucket, **settings))
    return store


def bare_store(service: S3Service, bucket: str, **settings: Any) -> Store:
    """The store of a suite whose subject are stores."""
    store = s3_store(service, bucket, **settings)
    return PatientStore(store) if isinstance(service, ServiceOfTheZoo) else store


class SplitStore(WrappedStore):
    """Passes on to the proxy what the product asks for, and to the server what a test prepares or looks at."""

    def __init__(self, proxied: Store, direct: Store) -> None:
        super().__init__(proxied)
        self._direct = direct

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        store = self.store if _is_asked_by_the_product() else self._direct
        return getattr(store, name)(*args, **keywords)


def _is_asked_by_the_product() -> bool:
    """Whether the nearest caller that is no double of a store belongs to the product."""
    frame = sys._getframe(2)
    while frame.f_back and any(isinstance(value, WrappedStore) for value in _first_argument(frame)):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).startswith("worker.")


def _first_argument(frame: Any) -> list[Any]:
    names = frame.f_code.co_varnames[: min(1, frame.f_code.co_argcount)]
    return [frame.f_locals.get(name) for name in names]


class PatientStore(WrappedStore):
    """Repeats what fails for a moment, as the engine does above a store, and a commit call answered with nothing."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        errors: list[StoreError] = []
        for _ in range(_TRIES):
            try:
                answer = super()._do(name, args, keywords)
            except (StoreUnavailableError, SlowDownError) as error:
                errors.append(error)
                continue
            if name not in PUBLISHING or answer.etag is not None:
                return answer
        if not errors:
            return answer
        # The test asks what the store makes of the call, and not whether it was busy at the last of them.
        raise next((error for error in errors if not isinstance(error, SlowDownError)), errors[0])

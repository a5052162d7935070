"""What some stores offer beyond the store protocol."""

from datetime import timedelta
from typing import Protocol, runtime_checkable


@runtime_checkable
class HasLifecycle(Protocol):
    """Optional capability: stores that can report their bucket's lifecycle rules."""

    def upload_lifetime(self, key: str) -> timedelta | None:
        """The age at which the bucket's rules abort an unfinished upload at the key; None: never.

        Raises NotSupportedError, PermissionDeniedError.
        """
        ...

"""What an HTTP answer says of an error: its status, and a code and a message without hosts."""

from typing import Final

from blobferry.errors import (
    BlobferryError,
    ConflictError,
    InvalidRequestError,
    JobNotFoundError,
    TooLateError,
    UnreachableError,
)

_STATUSES: Final[tuple[tuple[type[BlobferryError], int], ...]] = (
    (JobNotFoundError, 404),
    (TooLateError, 409),
    (ConflictError, 409),
    (InvalidRequestError, 422),
    (UnreachableError, 503),
)


def status_of(error: BlobferryError) -> int:
    """The HTTP status that the error means; 500 for one that is not the client's to mend."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def shown(error: BlobferryError) -> dict[str, str]:
    """Its code and message. What is out of reach is not named: that would tell of the app's own network."""
    message = "the jobs are out of reach for now; try again" if status_of(error) >= 500 else str(error)
    return {"code": error.code, "message": message}

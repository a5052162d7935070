"""Signed URLs: checks their options, and has the store sign them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final, cast, get_args

from blobferry.checks.url_options import OPTIONS, RESPONSE_OPTIONS
from blobferry.redaction import short_repr
from worker.errors import ArgumentTypeError, InvalidRequestError, NotSupportedError, UnsupportedMethodError
from worker.stores.blob_values import Method
from worker.stores.store import Store

_KNOWN: Final = ", ".join(OPTIONS)
_DEFAULT_SECONDS: Final = 20 * 60
LONGEST_LIFE: Final = timedelta(days=7)  #: Source: S3 user guide, "Sharing objects with presigned URLs"


def sign(store: Store, key: str, path: str, options: Mapping[str, Any]) -> str:
    """A URL for the key; ``options`` as in Driver.url_for. Raises UnsupportedMethodError, InvalidRequestError."""
    if not isinstance(options, Mapping):
        raise ArgumentTypeError(
            f"{store.name}: {path}: options: needs a mapping with some of {_KNOWN}, got {short_repr(options)}"
        )
    for name in options:
        if name not in OPTIONS:
            raise InvalidRequestError(f"{store.name}: {path}: unknown option {name!r:.200}; known options: {_KNOWN}")
    method = _method(options.get("method", "GET"), store)
    expiry = options.get("expiry")
    seconds = _DEFAULT_SECONDS if expiry is None else _seconds(expiry, store, path)
    answer = {name: options[name] for name in RESPONSE_OPTIONS if name in options}
    if answer and method != "GET":
        raise InvalidRequestError(f"{store.name}: {path}: {min(answer)}: only the answer to a GET can have it")
    try:
        return store.presign(method, key, seconds, answer)
    except NotSupportedError as error:
        raise UnsupportedMethodError(method, store.name, "blobs have no URLs here") from error


def _method(method: Any, store: Store) -> Method:
    for known in get_args(Method):
        if method == known:
            return cast(Method, known)
    raise UnsupportedMethodError(method if isinstance(method, str) else repr(method), store.name)


def _seconds(expiry: Any, store: Store, path: str) -> int:
    if not isinstance(expiry, datetime) or expiry.tzinfo is None:
        raise InvalidRequestError(f"{store.name}: {path}: expiry: must be an aware datetime, got {expiry!r:.200}")
    life = expiry - datetime.now(UTC)
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise InvalidRequestError(
            f"{store.name}: {path}: expiry: must lie within 7 days from now, got {expiry.isoformat()}"
        )
    return min(ceil(life.total_seconds()), int(LONGEST_LIFE.total_seconds()))

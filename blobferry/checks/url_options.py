"""The options of a signed URL, as ``url_for`` takes them and as a message carries them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from blobferry.checks.arguments import check_due, refused
from blobferry.checks.paths import MAX_KEY_BYTES
from blobferry.errors import InvalidRequestError, UnsupportedMethodError
from blobferry.redaction import short_repr

METHODS: Final = ("GET", "HEAD", "PUT")
#: Headers of the answer that the URL may set. Source: S3 API reference, GetObject
RESPONSE_OPTIONS: Final = ("response-content-disposition", "response-content-type")
OPTIONS: Final = ("method", "expiry", *RESPONSE_OPTIONS)
_MAX_HEADER: Final = 1024  #: characters


def check_url_options(name: str, value: Any) -> dict[str, str]:
    """``method``; ``expiry``: an aware datetime, a timedelta or seconds from now; headers of the answer to a GET."""
    if not isinstance(value, Mapping):
        raise refused(name, f"a mapping with some of {', '.join(map(repr, OPTIONS))}", value)
    for option in value:
        if option not in OPTIONS:
            known = ", ".join(map(repr, OPTIONS))
            raise InvalidRequestError(f"{name}: unknown option {short_repr(option)}; known options: {known}")
    options = {}
    if (method := value.get("method")) is not None:
        if method not in METHODS:
            raise UnsupportedMethodError(_shortened(method))
        options["method"] = str(method)
    if (expiry := value.get("expiry")) is not None:
        options["expiry"] = check_due(f"{name}: expiry", _as_duration(expiry))
    for option in RESPONSE_OPTIONS:
        if (header := value.get(option)) is not None:
            options[option] = _check_header(f"{name}: {option}", header, options.get("method", "GET"))
    return options


def _as_duration(expiry: Any) -> Any:
    is_number = isinstance(expiry, int | float) and not isinstance(expiry, bool)
    try:
        return timedelta(seconds=expiry) if is_number else expiry
    except (OverflowError, ValueError):
        return expiry


def _check_header(name: str, value: Any, method: str) -> str:
    if method != "GET":
        raise InvalidRequestError(f"{name}: only the answer to a GET can have it, and the method is {method}")
    if not isinstance(value, str) or not value.isprintable() or not value.isascii() or not 0 < len(value) < _MAX_HEADER:
        raise refused(
            name, f"printable ASCII, at most {_MAX_HEADER} characters (names beyond ASCII as filename*=)", value
        )
    return value


def _shortened(value: Any) -> str:
    """The text itself, for an error with a field for it; a short repr of anything else and of very long text."""
    return value if isinstance(value, str) and len(value) <= 2 * MAX_KEY_BYTES else short_repr(value)

"""The terms of a signed URL: what it allows and for how long. Checked here for drivers and clients alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final, Self, cast

from blobferry.checks.url_options import METHODS, OPTIONS, PUT_OPTIONS, RESPONSE_OPTIONS, Method
from blobferry.errors import ArgumentTypeError, InvalidRequestError, UnsupportedMethodError
from blobferry.redaction import short_repr

_KNOWN: Final = ", ".join(OPTIONS)
_DEFAULT_SECONDS: Final = 20 * 60
LONGEST_LIFE: Final = timedelta(days=7)  #: Source: S3 user guide, "Sharing objects with presigned URLs"


@dataclass(frozen=True, slots=True)
class UrlTerms:
    """What a URL allows."""

    method: Method
    seconds: int  #: for how long, 1 to 604,800
    headers: Mapping[str, str] = field(default_factory=dict)  #: options that are headers, of the answer or of a PUT

    @classmethod
    def of(cls, options: Mapping[str, Any], *, driver: str, path: str) -> Self:
        """The terms that options ask for, ``expiry`` as an aware datetime; ``driver`` and ``path`` are for errors.

        Raises UnsupportedMethodError, InvalidRequestError.
        """
        if not isinstance(options, Mapping):
            raise ArgumentTypeError(
                f"{driver}: {path}: options: needs a mapping with some of {_KNOWN}, got {short_repr(options)}"
            )
        for name in options:
            if name not in OPTIONS:
                raise InvalidRequestError(f"{driver}: {path}: unknown option {name!r:.200}; known options: {_KNOWN}")
        method = options.get("method", "GET")
        if method not in METHODS:
            raise UnsupportedMethodError(method if isinstance(method, str) else repr(method), driver)
        expiry = options.get("expiry")
        seconds = _DEFAULT_SECONDS if expiry is None else _seconds(expiry, f"{driver}: {path}")
        return cls(cast(Method, method), seconds, _headers(options, method, f"{driver}: {path}"))


def given_options(checked: Mapping[str, str] | None) -> dict[str, Any]:
    """Options from a message, or as ``check_url_options`` returns them, for :meth:`UrlTerms.of`."""
    options: dict[str, Any] = dict(checked or {})
    if "expiry" in options:
        options["expiry"] = datetime.fromisoformat(options["expiry"])
    return options


def _headers(options: Mapping[str, Any], method: str, where: str) -> dict[str, str]:
    for names, wanted, whose in ((RESPONSE_OPTIONS, "GET", "the answer to a GET"), (PUT_OPTIONS, "PUT", "a PUT")):
        given = [name for name in names if name in options]
        if given and method != wanted:
            raise InvalidRequestError(f"{where}: {min(given)}: only {whose} can have it")
    return {name: options[name] for name in (*RESPONSE_OPTIONS, *PUT_OPTIONS) if name in options}


def _seconds(expiry: Any, where: str) -> int:
    if not isinstance(expiry, datetime) or expiry.tzinfo is None:
        raise InvalidRequestError(f"{where}: expiry: must be an aware datetime, got {expiry!r:.200}")
    life = expiry - datetime.now(UTC)
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise InvalidRequestError(f"{where}: expiry: must lie within 7 days from now, got {expiry.isoformat()}")
    return min(ceil(life.total_seconds()), int(LONGEST_LIFE.total_seconds()))

"""Redaction: how values appear in errors, logs, Flower and displayed columns, without their secrets."""

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"
MAX_FOREIGN: Final = 4000  #: characters of somebody else's text in a column or a log

_SEALED: Final = "sealed:"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?(//)?([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST = re.compile(r"(\[[^\[\]@]*\]|[^:\[\]@]+)(:[0-9]*)?")
_WITHOUT_SECRETS = ("", "file:", "blob:")


def redacted(url: str) -> str:
    """The URL without its user part, the values of its query and its fragment.

    The query of a presigned URL holds the signature; its names stay. Takes any text, because errors about malformed
    URLs must not show secrets either.
    """
    if is_sealed(url):
        return _SEALED + HIDDEN
    match = _URL.fullmatch(url)
    assert match is not None, "the pattern matches every text"
    scheme, slashes, authority, path = (piece or "" for piece in match.groups()[:4])
    query, fragment = match[5], match[6]
    if "@" in authority:
        authority = f"{HIDDEN}@{authority.rpartition('@')[2]}"
    elif scheme.lower() not in _WITHOUT_SECRETS and not _HOST.fullmatch(authority):
        return f"{scheme}{slashes}{HIDDEN}"  # perhaps a password with a slash in it, of unknown length
    shown = scheme + slashes + authority + path
    if query is not None:
        shown += "?" + "&".join(_without_value(piece) for piece in query.split("&"))
    return shown if fragment is None else f"{shown}#{HIDDEN}"


def _without_value(piece: str) -> str:
    name, equals, _ = piece.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN if name else ""


def holds_secret(url: str) -> bool:
    """True if the URL has a part that may not be shown: a user part, a query with a value, a fragment."""
    return redacted(url) != url


def is_sealed(url: str) -> bool:
    """True for a URL that has been encrypted."""
    return url.startswith(_SEALED)


def sealed_text(token: str) -> str:
    """The text of an encrypted URL."""
    return _SEALED + token


_SHOWN_PATHS: Final = 3


def redacted_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The checked arguments of an operation for display in messages: without secrets and contents."""
    shown = dict(arguments)
    if isinstance(source := shown.get("source"), str):
        shown["source"] = redacted(source)
    if isinstance(webhook := shown.get("webhook"), str):
        shown["webhook"] = redacted(webhook)
    if isinstance(contents := shown.get("contents"), Mapping):
        encoded = str(contents.get("base64", ""))
        size = contents.get("size", len(encoded) // 4 * 3 - encoded[-2:].count("="))
        shown["contents"] = f"<{size} bytes>"
    if isinstance(paths := shown.get("paths"), list) and len(paths) > _SHOWN_PATHS:
        shown["paths"] = [*paths[:_SHOWN_PATHS], f"… {len(paths)} in all"]
    return shown


def short_repr(value: Any, limit: int = 200) -> str:
    """The repr of a value, at most ``limit`` characters, for errors and for display."""
    try:
        text = repr(value)
    except Exception:  # a number of too many digits, a list nested too deeply, the caller's own class
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """The text with control characters escaped: a name or an error may hold a terminal's escape sequence."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def cleaned(text: str, limit: int = MAX_FOREIGN) -> str:
    """Text of others (stores, servers, file names) for a column or a log: printable, at most ``limit`` characters.

    No database and no terminal takes harm from it: zero bytes, lone surrogates and control characters are escaped.
    """
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"

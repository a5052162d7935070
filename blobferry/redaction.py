"""What may be shown of values: in errors, logs, Flower, and the columns that people look at. Secrets are not."""

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"

_SEALED: Final = "sealed:"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?(//)?([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST = re.compile(r"(\[[^\[\]@]*\]|[^:\[\]@]+)(:[0-9]*)?")
_WITHOUT_SECRETS = ("", "file:", "blob:")


def redacted(url: str) -> str:
    """The URL without the secrets that it may hold: its user part, the values of its query, its fragment.

    Presigned URLs have their signature in the query; the names there stay. Takes any text: an error about a URL that
    cannot be parsed shows none either.
    """
    if is_sealed(url):
        return _SEALED + HIDDEN
    match = _URL.fullmatch(url)
    assert match is not None, "every text is one"
    scheme, slashes, authority, path = (piece or "" for piece in match.groups()[:4])
    query, fragment = match[5], match[6]
    if "@" in authority:
        authority = f"{HIDDEN}@{authority.rpartition('@')[2]}"
    elif scheme.lower() not in _WITHOUT_SECRETS and not _HOST.fullmatch(authority):
        return f"{scheme}{slashes}{HIDDEN}"  # perhaps a password with a slash in it: who knows where it ends
    shown = scheme + slashes + authority + path
    if query is not None:
        shown += "?" + "&".join(_without_value(piece) for piece in query.split("&"))
    return shown if fragment is None else f"{shown}#{HIDDEN}"


def _without_value(piece: str) -> str:
    name, equals, _ = piece.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN if name else ""


def holds_secret(url: str) -> bool:
    """Whether anything of it may not be shown: a user part, or a query with a value."""
    return redacted(url) != url


def is_sealed(url: str) -> bool:
    """Whether it is a URL that has been encrypted."""
    return url.startswith(_SEALED)


def sealed_text(token: str) -> str:
    """How a URL is written that has been encrypted."""
    return _SEALED + token


def redacted_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The checked arguments of an operation for people who look at messages: without secrets, without contents."""
    shown = dict(arguments)
    if isinstance(source := shown.get("source"), str):
        shown["source"] = redacted(source)
    if isinstance(contents := shown.get("contents"), Mapping):
        encoded = str(contents.get("base64", ""))
        shown["contents"] = f"<{len(encoded) // 4 * 3 - encoded[-2:].count('=')} bytes>"
    return shown


def short_repr(value: Any) -> str:
    """A value as an error shows it: its repr, cut short."""
    try:
        text = repr(value)
    except Exception:  # a number with too many digits, a list within itself a thousand times, somebody's own class
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else text[:199] + "…"


def printable(text: str) -> str:
    """The text without control characters: a name or an error may hold an escape sequence for the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

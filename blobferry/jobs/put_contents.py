"""The bytes of a put_content: in a column of their own, while the request has their size and digest.

Rows of earlier versions hold the bytes in the request, as ``{"base64": "…"}``.
"""

from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

Request = Mapping[str, Any]


def apart(request: Request) -> tuple[dict[str, Any], bytes | None]:
    """The arguments to keep in the request, and the bytes to keep beside it; None for another operation."""
    contents = inline_contents(request)
    return _digested(request, contents), contents


def digested(request: Request) -> dict[str, Any]:
    """The request with the size and the digest of its bytes; two requests are equal if these are."""
    return _digested(request, inline_contents(request))


def _digested(request: Request, contents: bytes | None) -> dict[str, Any]:
    if contents is None:
        return dict(request)
    return {**request, "contents": {"size": len(contents), "sha256": sha256(contents).hexdigest()}}


def inline_contents(request: Request | None) -> bytes | None:
    """The bytes that the request itself holds, or None."""
    contents = (request or {}).get("contents")
    return b64decode(contents["base64"]) if contents and "base64" in contents else None


def contents_of(apart: bytes | None, request: Request | None) -> bytes | None:
    """The bytes of a row: those of its column, or, in a row of an earlier version, of its request."""
    return inline_contents(request) if apart is None else apart

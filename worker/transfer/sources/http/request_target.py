"""RequestTarget: what one http request goes to, taken from a URL or from a redirect."""

from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import unquote_to_bytes, urljoin

from urllib3.exceptions import LocationValueError
from urllib3.util import parse_url

from blobferry.redaction import redacted
from worker.errors import SourceError, SourceNotAllowedError

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """Host, path and credentials of one request."""

    scheme: str
    host: str
    port: int
    request: str = field(repr=False)  #: path and query
    authorization: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        try:
            parts = parse_url(url)
        except LocationValueError:
            raise SourceError("malformed URL") from None  # the cause would show it
        if parts.scheme not in _PORTS:
            raise SourceNotAllowedError(f"{redacted(url)}: neither an http nor an https URL")
        if not parts.host:
            raise SourceError(f"{redacted(url)}: has no host")
        authorization = None
        if parts.auth is not None:
            user, _, password = parts.auth.partition(":")
            pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
            authorization = f"Basic {b64encode(pair).decode()}"
        return cls(parts.scheme, parts.host, parts.port or _PORTS[parts.scheme], parts.request_uri, authorization)

    def redirected(self, location: str | None, shown: str) -> Self:
        """Return the target that a redirect's Location names; credentials stay only on the same host."""
        if not location:
            raise SourceError(f"{shown}: redirects without a Location")
        try:
            raw = location.encode("latin-1").decode(errors="replace")  # a header is read as Latin-1 and mostly UTF-8
            joined = urljoin(f"{self.scheme}://{self.host}:{self.port}{self.request}", raw)
        except ValueError:
            raise SourceError(f"{shown}: redirects to a malformed URL") from None
        target = self.parse(joined)
        if (self.scheme, target.scheme) == ("https", "http"):
            raise SourceNotAllowedError(f"{shown}: redirects from https to http, to {redacted(joined)}")
        same_port = self.port == target.port or (self.port, target.port) == (80, 443)
        if target.authorization is None and target.host == self.host and same_port:
            return replace(target, authorization=self.authorization)
        return target

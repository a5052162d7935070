"""SignedUrl: a URL with the headers that a request to it has to send."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self


class SignedUrl(str):
    """A URL that needs no credentials. A string like any other, with ``headers``.

    ``headers``: what the PUT has to send, as given: they are signed, and any other value is refused by the store.
    Empty for GET and HEAD.
    """

    __slots__ = ("_headers",)
    _headers: tuple[tuple[str, str], ...]

    def __new__(cls, url: str, headers: Mapping[str, str] | None = None) -> Self:  # noqa: D102  as the class
        made = super().__new__(cls, url)
        made._headers = tuple((headers or {}).items())
        return made

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by name."""
        return MappingProxyType(dict(self._headers))

    def __reduce__(self) -> tuple[type[Self], tuple[str, dict[str, str]]]:
        return type(self), (str(self), dict(self._headers))

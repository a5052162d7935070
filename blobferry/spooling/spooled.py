"""A spooled upload: a source whose file is Blobferry's. Its name says what the worker and the sweep need to know."""

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

_DIGEST: Final = 16  #: hexadecimal characters of a SHA-256 in a name
_NAME: Final = re.compile(r"ferry-[0-9a-f]{32}-(0|[1-9][0-9]{0,15})-([0-9a-f]{16}|0)")
_PART: Final = re.compile(r"\.ferry-[0-9a-f]{32}\.part")


class SpooledName(NamedTuple):
    """What the name of a spooled file says of its bytes."""

    name: str
    size: int  #: bytes
    digest: str  #: the first characters of their SHA-256; "" if nobody has computed it

    @classmethod
    def new(cls, size: int, sha256: str | None) -> Self:
        """A name that nobody can guess."""
        digest = (sha256 or "")[:_DIGEST]
        return cls(f"ferry-{secrets.token_hex(16)}-{size}-{digest or '0'}", size, digest)

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The meaning of the name; None for a file that is none of ours."""
        match = _NAME.fullmatch(name)
        return cls(name, int(match[1]), "" if match[2] == "0" else match[2]) if match else None

    @classmethod
    def of_url(cls, url: str | None) -> Self | None:
        """The name in the URL of a spooled file; None for any other source, and for a sealed one: open it first."""
        if url is None or not url.startswith("file:"):
            return None
        return cls.parse(unquote(urlsplit(url).path).rpartition("/")[2])

    def has_digest_of(self, sha256: str) -> bool:
        """Whether bytes with this SHA-256 are those that were spooled, as far as the name tells."""
        return not self.digest or sha256.startswith(self.digest)


def new_part_name() -> str:
    """The name of a file that is still being written."""
    return f".ferry-{secrets.token_hex(16)}.part"


def is_part_name(name: str) -> bool:
    """Whether it is such a name: no job can have it as its source."""
    return _PART.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Spooled:
    """An upload in the spool directory: the ``source`` of the jobs of one transaction. Whole and on the disk.

    The worker removes the file after the job has succeeded. If no job is submitted for it, a sweep does within days.
    """

    path: Path
    size: int  #: bytes
    sha256: str | None  #: of the bytes, in hexadecimal; None with ``digest=False``

    @property
    def url(self) -> str:
        """Its ``file:`` URL."""
        return self.path.as_uri()

    def discard(self) -> None:
        """Remove the file, of which no job was submitted, or whose transaction was rolled back. May be repeated."""
        with suppress(FileNotFoundError):
            self.path.unlink()

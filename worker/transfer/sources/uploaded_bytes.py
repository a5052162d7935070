"""Whether a spooled upload has the bytes that its name tells: the app's host has written them, this one reads them."""

from collections.abc import Callable
from hashlib import sha256
from socket import gethostname
from typing import Final

from blobferry.spooling.spooled import SpooledName
from worker.errors import SourceChangedError
from worker.units import MIB

CHECKED: Final = 8 * MIB  #: bytes up to which an upload is read once more; of a larger one only the size is checked


def refuse_other_upload(url: str, size: int, whole: Callable[[], bytes]) -> None:
    """Raise SourceChangedError if the file of this URL, of that size, is not what was spooled under it.

    ``whole`` reads the file. Does nothing for a source that was not spooled.
    """
    name = SpooledName.of_url(url)
    if name is None:
        return
    if name.size != size:
        raise _changed(url, f"has {size} bytes, and {name.size} were spooled")
    if name.digest and size <= CHECKED and not name.has_digest_of(sha256(whole()).hexdigest()):
        raise _changed(url, "has other bytes than were spooled")


def _changed(url: str, how: str) -> SourceChangedError:
    return SourceChangedError(f"{url}: {how}, by its name; seen on worker host {gethostname()}")

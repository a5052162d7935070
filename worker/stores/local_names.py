"""Between keys and names of files. Pure: no file is touched here.

A key's components are directories below ``blobs``, and its last one is the beginning of two files' names::

    a/b/c.txt   ->  blobs/a/b/c.txt@                     the record: what is visible, as JSON
                    blobs/a/b/c.txt@5f3a9c0d11e27b84     its bytes, a plain file; the record names it

Letters, digits and ``-._=~,`` stand for themselves, any other byte is ``%XX``. So only files hold ``@``, and no key can
name a file of another's, nor leave the tree: ``a`` and ``a/b`` coexist, ``..`` is ``%2E%2E``, an empty component ``%``.
A component that is too long for a name is cut; each piece but the last is a directory whose name ends with ``+``.
A cut depends on the bytes before it alone: whatever begins with a piece lies below that piece's directory.
Hence the keys below any directory are neighbours in byte order.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from worker.errors import InvalidStoreRequestError

_MAX_KEY: Final = 1024  # bytes. Source: S3 user guide, "Creating object key names"
_CUT: Final = 200  # a piece ends when its name has reached this: 202 at most, and 17 of a version, make less than 255
_PLAIN: Final = re.compile(r"[A-Za-z0-9\-._=~,]*")
_ESCAPED: Final = [chr(byte) if _PLAIN.fullmatch(chr(byte)) else f"%{byte:02X}" for byte in range(256)]
_DOTS: Final = {".": "%2E", "..": "%2E%2E", "": "%"}
_DOTTED: Final = {name: dots.encode() for dots, name in _DOTS.items()}


def key_bytes(key: str) -> bytes:
    """The key in UTF-8, whose byte order is that of listings."""
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise InvalidStoreRequestError(f"local: the key {key!r} cannot be written in UTF-8") from error


def check_key(key: str) -> None:
    """Refuse a key that nothing can be stored under."""
    size = len(key_bytes(key))
    if not 0 < size <= _MAX_KEY:
        raise InvalidStoreRequestError(f"local: a key has 1 to {_MAX_KEY} bytes, not {size}: {key!r}")


def locate(key: bytes) -> tuple[list[str], str]:
    """The directories of a key, and the beginning of its files' names."""
    *parents, last = key.split(b"/")
    directories: list[str] = []
    for component in parents:
        *cut, (rest, _) = _pieces(component)
        directories += [*(name + "+" for name, _ in cut), _DOTS.get(rest, rest)]
    *cut, (leaf, _) = _pieces(last)
    return [*directories, *(name + "+" for name, _ in cut)], leaf


def above(prefix: bytes) -> bytes:
    """What all keys begin with that lie in or below the directory of the key ``prefix``."""
    (_, size) = _pieces(prefix[prefix.rfind(b"/") + 1 :])[-1]
    return prefix[: len(prefix) - size]


def _pieces(component: bytes) -> list[tuple[str, int]]:
    """The names of the pieces, and how many bytes each stands for. All but the last were cut."""
    pieces = []
    name, size = "", 0
    for byte in component:
        name, size = name + _ESCAPED[byte], size + 1
        if len(name) >= _CUT:
            pieces.append((name, size))
            name, size = "", 0
    return [*pieces, (name, size)]


def decode_directory(name: str) -> bytes | None:
    """What a directory adds to the keys below it; None if it is none of ours."""
    if name in _DOTTED:
        return _DOTTED[name] + b"/"
    if name.endswith("+"):
        return decode(name[:-1])
    decoded = decode(name)
    return None if not decoded else decoded + b"/"


def decode(name: str) -> bytes | None:
    """The bytes that a piece's name stands for; None if it is none of ours."""
    if _PLAIN.fullmatch(name):
        return name.encode()
    if not name.isascii():
        return None
    decoded = unquote_to_bytes(name)
    return decoded if "".join(_ESCAPED[byte] for byte in decoded) == name else None

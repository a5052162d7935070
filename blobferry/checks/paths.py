"""Checks of paths, by the rules that a storage's ``keys`` sets."""

import re
from typing import Any, Final

from blobferry.errors import ConfigurationError, InvalidPathError, InvalidRequestError
from blobferry.redaction import short_repr

MAX_KEY_BYTES: Final = 1024  #: Source: S3 user guide, "Creating object key names"
MAX_PATHS: Final = 1000  #: of one request

_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
#: No control characters, and no lone surrogates, which are not UTF-8.
_ANY_PATH = re.compile(r"(/[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]+)+")


def check_keys(keys: str) -> str:
    """The rules that a client checks paths by. Raises ConfigurationError."""
    if keys not in ("", "registry", "any"):
        raise ConfigurationError("keys", f"needs 'registry' or 'any', got {keys!r:.50}")
    return keys or "registry"


def check_path(path: Any, keys: str = "registry") -> str:
    """Return the path if it can name a blob: absolute, and no component is empty, ``.`` or ``..``.

    Args:
        path: of a blob.
        keys: "registry": ASCII letters, digits, ``.``, ``_`` and ``-``; "any": all UTF-8 but control characters.
    """
    is_good = _is_any_path(path) if keys == "any" else _is_registry_path(path)
    if not is_good or any(component in (".", "..") for component in path.split("/")):
        raise InvalidPathError(path, keys=keys)
    return str(path)


def key_of(path: Any, *, root: str, keys: str, driver: str) -> str:
    """The store's key of a blob's path, below the storage's root directory, "" for none. Raises InvalidPathError."""
    try:
        key = "/".join(filter(None, (root.strip("/"), check_path(path, keys)[1:])))
    except InvalidPathError as error:
        raise InvalidPathError(error.path, driver, keys) from None
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidPathError(path, driver, keys)
    return key


def _is_registry_path(path: Any) -> bool:
    return isinstance(path, str) and _PATH.fullmatch(path) is not None and len(path) <= MAX_KEY_BYTES


def _is_any_path(path: Any) -> bool:
    # S3 counts bytes of UTF-8, and the path has a slash that the key has not.
    if not isinstance(path, str) or len(path) > MAX_KEY_BYTES + 1 or not _ANY_PATH.fullmatch(path):
        return False
    return len(path.encode()) <= MAX_KEY_BYTES + 1


def check_path_value(name: str, value: Any) -> str:
    """The path of a blob."""
    return check_path(value)


def check_path_values(name: str, value: Any) -> list[str]:
    """The paths of 1 to 1,000 blobs."""
    return [check_path(path) for path in _some(name, value)]


def check_any_path_values(name: str, value: Any) -> list[str]:
    """The same where their storage may have ``keys = "any"``."""
    return [check_any_path_value(name, path) for path in _some(name, value)]


def _some(name: str, value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_PATHS:
        raise InvalidRequestError(f"{name}: needs a list of 1 to {MAX_PATHS} paths, got {short_repr(value)}")
    return value


def check_path_or_root(name: str, value: Any) -> str:
    """The path of a blob or a directory; ``/`` is the whole storage."""
    return value if isinstance(value, str) and value == "/" else check_path(value)


def check_any_path_value(name: str, value: Any) -> str:
    """The path of a blob whose storage may have ``keys = "any"``, in as many characters as its column has."""
    if len(check_path(value, "any")) > MAX_KEY_BYTES:
        raise InvalidPathError(value, keys="any")
    return str(value)


def check_any_path_or_root(name: str, value: Any) -> str:
    """The same for a blob or a directory."""
    return value if isinstance(value, str) and value == "/" else check_any_path_value(name, value)

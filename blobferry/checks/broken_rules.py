"""Which rule a path breaks, in words, for errors. The rules themselves are in :mod:`blobferry.checks.paths`."""

from typing import Any, Final

_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
#: Nothing that is wrong with the text itself: the driver adds the root directory before it counts.
_TOO_LONG: Final = "its key, with the storage's root directory, has more than 1,024 bytes"


def broken_rule(path: Any, keys: str) -> str:
    """The first rule that the path breaks, and the character or component that breaks it."""
    if not isinstance(path, str):
        return f"a path is a string, not of type {type(path).__name__}"
    if not path.startswith("/"):
        return "a path begins with '/'"
    if path == "/":
        return "it is the whole storage; this needs the path of one blob or directory in it"
    for component in path[1:].split("/"):
        if component in ("", ".", ".."):
            return _unnamed(component, path)
        for letter in component:
            if keys != "any" and letter not in _LETTERS:
                return (
                    f"holds {letter!r}, and components hold ASCII letters, digits, '.', '_' and '-' "
                    '(keys = "registry"): blobferry.safe_path() replaces others, a storage with keys = "any" takes them'
                )
            if not letter.isprintable() and (ord(letter) < 0xA0 or "\ud800" <= letter <= "\udfff"):
                return f'holds {letter!r}, and components hold no control characters (keys = "any")'
    return _TOO_LONG


def _unnamed(component: str, path: str) -> str:
    if component:
        return f"has the component {component!r}: write the path that is meant"
    return "ends with '/': leave that out" if path.endswith("/") else "has an empty component: write '/' once"

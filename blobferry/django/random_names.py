"""Names that no other file has, for when nobody can tell which ones are free."""

import posixpath
from typing import Final

from django.core.exceptions import SuspiciousFileOperation
from django.utils.crypto import get_random_string

RANDOM: Final = 12  #: characters, each one of 62


def random_name(name: str, max_length: int | None = None) -> str:
    """The name with a random part before its extension, cut to ``max_length`` characters. Raises as Django does."""
    root, extension = posixpath.splitext(name.replace("\\", "/"))
    end = f"_{get_random_string(RANDOM)}{extension}"
    if max_length is not None:
        directory = posixpath.dirname(root)
        room = max_length - len(end)
        if room <= len(directory) + 1:
            raise SuspiciousFileOperation(f"no name such as {name!r} has room in {max_length} characters: max_length")
        root = root[:room]
    return root + end

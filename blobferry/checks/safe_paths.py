"""Paths made of names that people have given to their files."""

import re
import unicodedata
from typing import Final

from blobferry.checks.paths import MAX_KEY_BYTES, check_path
from blobferry.errors import InvalidRequestError

_OTHERS: Final = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_COMPONENT: Final = 200  #: characters; the end, which says what kind of file it is, is kept


def safe_path(*names: str) -> str:
    """A path that every storage takes, with one component for each name: accents and all else that it may not hold go.

    ``safe_path("videos", "7", "Ärger (1).mp4")`` is ``/videos/7/Arger_1_.mp4``. A slash within a name is replaced as
    well, so a name of a browser's upload leads nowhere else. Different names may give the same path: put an id before
    them. Raises InvalidRequestError without a name, or if the path is too long.
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidRequestError("safe_path: needs names as strings, one for each component of the path")
    path = "".join(f"/{_component(name)}" for name in names)
    if len(path) > MAX_KEY_BYTES:
        raise InvalidRequestError(f"safe_path: the path has {len(path)} characters; it may have {MAX_KEY_BYTES}")
    return check_path(path)


def _component(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name)
    plain = _OTHERS.sub("_", "".join(letter for letter in letters if not unicodedata.combining(letter)))
    return "_" if plain.strip(".") == "" else plain[-LONGEST_COMPONENT:]

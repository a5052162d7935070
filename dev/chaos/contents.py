"""What the jobs write: bytes that tell whose they are, made from a name and a size whenever they are needed."""

import random
from binascii import crc32
from functools import cache
from typing import Final

MIB: Final = 1024 * 1024
LARGEST: Final = 32 * MIB  #: bytes
_LABEL: Final = 16  #: bytes of the name at the beginning


def content(name: str, size: int) -> bytes:
    """The bytes of that name. Those of two names differ everywhere, so that no part of one passes for another's."""
    label = name.encode().ljust(_LABEL, b".")[:_LABEL]
    begin = crc32(name.encode()) % LARGEST
    return (label + _noise()[begin : begin + max(size - _LABEL, 0)])[:size]


@cache
def _noise() -> bytes:
    return random.Random("noise").randbytes(LARGEST) * 2

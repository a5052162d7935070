"""The kinds of stores that the driver's tests run on, and how a test's cases are spread over them.

Parts are tiny, so that a blob of many parts is a few kilobytes. On servers a blob has at most ten parts: Swift reads
later ones at one a second if they are that small.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest

from worker.stores.blob_values import Limits
from worker.transfer.upload.server_copy import Copying

MIN = 256  #: bytes; the least that a part may have which is not the last
PART = 1_024  #: bytes; what the driver sends at once
COPYING = Copying(threshold=2 * PART, part_size=PART, threads=2)
LIMITS = Limits(min_part_size=MIN)
BUCKET = "driver-suite"
KINDS: Final = ("memory", "local", "moto", "swift")
AT_HOME: Final = ("memory", "local")  #: those that no request has to travel to

SERVERS: Final = ("moto", "swift")  #: those that have URLs, and may be out of reach

on_servers = pytest.mark.parametrize("kind", SERVERS)
at_home = pytest.mark.parametrize("kind", AT_HOME)
"""For what the driver decides by itself, without asking its store."""


def cases(
    names: str, everywhere: Iterable[Any], more: Iterable[Any] = (), *, files: Iterable[str] | None = None
) -> pytest.MarkDecorator:
    """Parametrize, for all stores, and with some more cases for those at home. A case's id may stand in a mapping.

    With ``files``, each case has the fixture ``reader_of`` give a reader, and on these stores a file as well.
    """

    def params(kinds: Iterable[str], given: Iterable[Any]) -> Iterable[Any]:
        named = given.items() if isinstance(given, Mapping) else ((str(value), value) for value in given)
        for name, value in named:
            values = value if isinstance(value, tuple) else (value,)
            for kind in kinds:
                if files is None:
                    yield pytest.param(kind, *values, id=f"{kind}-{name}")
                    continue
                for reader in ("reader", "file") if kind in files else ("reader",):
                    yield pytest.param(kind, *values, reader, id=f"{kind}-{name}-{reader}")

    columns = ["kind", *(name.strip() for name in names.split(",")), *([] if files is None else ["reader_of"])]
    indirect = [] if files is None else ["reader_of"]
    return pytest.mark.parametrize(columns, [*params(KINDS, everywhere), *params(AT_HOME, more)], indirect=indirect)


both_readers = pytest.mark.parametrize(
    ("kind", "reader_of"),
    [*((kind, "reader") for kind in KINDS), *((kind, "file") for kind in AT_HOME)],
    indirect=["reader_of"],
)
"""Readers on all stores, and files on those at home."""

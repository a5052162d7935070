"""Whose a spool directory is: a marker in it names a row of the database that sweeps it.

Two installations that share a directory by mistake, or a test that runs with production's settings, would each take the
other's uploads for orphans. So the first database that sweeps the directory keeps it.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from models import Database, queries

MARKER: Final = ".blobferry-spool"


def is_ours(database: Database, directory: Path) -> bool:
    """Whether this database sweeps the directory; an unmarked one becomes its own. Raises OSError, UnreachableError.

    The row is committed before the marker appears, so whoever sees the marker finds the row. A killed process leaves a
    row without a marker, which means nothing.
    """
    marker = directory / MARKER
    if not marker.exists():
        _claim(database, directory, marker)
    with database.read() as session:
        return queries.owns_spool(session, marker.read_text().strip())


def _claim(database: Database, directory: Path, marker: Path) -> None:
    spool_id = secrets.token_hex(16)
    with database.begin() as session:
        queries.add_spool(session, spool_id)
    written = directory / f"{MARKER}-{spool_id}"
    written.write_text(f"{spool_id}\n")
    try:
        with suppress(FileExistsError):  # another worker's was first
            os.link(written, marker)
    finally:
        written.unlink()

"""Runs Alembic's migrations, and compares them with a database. Import it late: Alembic takes ten MiB."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

ALEMBIC_INI: Final = Path(__file__).parent.parent / "alembic.ini"


def upgrade(revision: str) -> None:
    """Bring the configured database to ``revision``; "head" is the newest. Safe to repeat, also concurrently."""
    command.upgrade(Config(str(ALEMBIC_INI)), revision)


def known_revisions() -> list[str]:
    """The revisions that this code knows, newest first. The newest is the one that it works with."""
    scripts = ScriptDirectory.from_config(Config(str(ALEMBIC_INI)))
    return [script.revision for script in scripts.walk_revisions()]

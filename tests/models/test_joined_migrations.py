"""Our migrations among those of an app's own Alembic: its env.py, its version table, its heads beside ours."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from blobferry.errors import ConfigurationError
from blobferry.sql.database import open_engine
from blobferry.sql.tables import metadata
from dev import services
from models.migrations import SCRIPTS, known_revisions, revision_of
from models.table_check import refuse_unmigrated
from tests.conftest import alembic_config

#: As `alembic init` writes it, in short; one transaction for all migrations is Alembic's default.
ENV = """
from alembic import context
from sqlalchemy import create_engine
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration={per_migration})
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
VIDEOS = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "4f1d2c3b9a8e", None, None, {needs}
def upgrade():
    op.create_table("videos", sa.Column("id", sa.Integer(), primary_key=True),
                    sa.Column("job_id", sa.String(155), sa.ForeignKey("blobferry_jobs.id")))
def downgrade():
    op.drop_table("videos")
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, with the driver that Blobferry would choose."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'app.db'}"
        return
    with services.postgres_database(request.getfixturevalue("postgres_server")) as url:
        yield open_engine(url).url.render_as_string(hide_password=False)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def app(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Config:
    """The app's own Alembic, with our folder as a second one."""
    scripts = tmp_path / "alembic"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(ENV.format(per_migration=getattr(request, "param", True)))
    (scripts / "versions" / "4f1d2c3b9a8e_videos.py").write_text(VIDEOS.format(needs='"0001"'))
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", os.pathsep.join(map(str, [scripts / "versions", SCRIPTS / "versions"])))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


@pytest.mark.parametrize("app", [True, False], indirect=True, ids=["a transaction each", "one for all"])
def test_they_make_the_same_tables_beside_the_apps_own(app: Config, engine: Engine, url: str) -> None:
    command.upgrade(app, "heads")
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "videos", "alembic_version"}
    with engine.connect() as connection:
        compared = compare_metadata(
            MigrationContext.configure(connection, opts={"include_name": lambda name, *_: name != "videos"}), metadata
        )
        assert [each for each in compared if "ix_blobferry_jobs_best" not in str(each)] == []  # SQLite: no DESC
        assert set(connection.scalars(text("SELECT version_num FROM alembic_version"))) >= {"4f1d2c3b9a8e"}
        assert revision_of(connection) == known_revisions()[0]
    refuse_unmigrated(url)


def test_the_label_names_ours_alone(app: Config, engine: Engine) -> None:
    command.upgrade(app, "blobferry@head")
    assert not inspect(engine).has_table("videos")
    command.upgrade(app, "heads")
    assert inspect(engine).has_table("videos")
    assert [script.revision for script in ScriptDirectory.from_config(app).get_revisions("heads")] == [
        "4f1d2c3b9a8e",
        known_revisions()[0],
    ]


def test_our_own_command_leaves_tables_of_the_apps_migrations_to_them(app: Config, engine: Engine, url: str) -> None:
    command.upgrade(app, "blobferry@head")
    with pytest.raises(ConfigurationError, match="made by the migrations of your app"):
        command.upgrade(alembic_config(url), "head")
    assert "blobferry_alembic_version" not in inspect(engine).get_table_names()

"""A web process that is killed anywhere leaves the app's row and the job, or neither; what it has not published is."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from blobferry.messages.job_messages import Message
from tests.client.conftest import CHECKOUT
from tests.django.conftest import Project, as_in_settings
from tests.jobs.job_world import World
from worker.maintenance.sweep_spool import SpoolSweep

VIEW = """
import json, os, signal, sys
import django
from django.conf import settings
database, broker_url, spool_dir, when = json.loads(sys.argv[1])
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["blobferry.django"],
                   BLOBFERRY={"BROKER_URL": broker_url, "SPOOL_DIR": spool_dir})
django.setup()
from django.core.files.base import ContentFile
from django.db import connection, transaction
from blobferry.django import ferry
from blobferry.django.storage import FerryStorage

def die():
    os.kill(os.getpid(), signal.SIGKILL)

with transaction.atomic():
    if when == "before the message":
        transaction.on_commit(die)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO app_video (id) VALUES (1)")
    if spool_dir:
        FerryStorage(timeout=0.05).save("7.mp4", ContentFile(b"seven"))
    else:
        ferry.delete("/a")
    if when == "before the commit":
        die()
die()
"""


def kill(project: Project, when: str, spool: Path | None = None) -> None:
    """Run the view in a process of its own, which dies then. With a ``spool`` it saves a file."""
    where = as_in_settings(project.site.url), project.site.broker_url, spool and str(spool)
    asked = json.dumps([*where, when])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-W", "error", "-c", VIEW, asked]
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


def test_killed_before_the_commit_there_is_neither(project: Project) -> None:
    kill(project, "before the commit")
    assert (project.videos(), project.job_ids(), project.site.messages()) == ([], [], [])


def test_killed_before_the_message_the_caretaker_sends_it(project: Project, tmp_path: Path) -> None:
    kill(project, "before the message")
    assert (project.videos(), project.site.messages()) == ([1], [])
    (job_id,) = project.job_ids()
    sent: list[Message] = []

    def publish(*messages: Message) -> int:
        sent.extend(messages)
        return len(messages)

    world = World(project.site.database, tmp_path / "incoming")
    assert world.sweep(publish=publish).published == 0, "its message may be on its way for 30 seconds"
    with project.site.database.begin() as session:
        session.execute(text("UPDATE blobferry_jobs SET published_at = '2020-01-01 00:00:00.000000'"))
    assert world.sweep(publish=publish).published == 1
    assert [message.job_id for message in sent] == [job_id]


def test_killed_later_there_are_both_and_one_message(project: Project) -> None:
    kill(project, "later")
    assert project.videos() == [1]
    assert project.site.message_ids() == project.job_ids()
    assert len(project.job_ids()) == 1


@pytest.mark.parametrize(("when", "is_kept"), [("before the commit", False), ("before the message", True)])
def test_a_spooled_file_is_kept_if_and_only_if_its_row_is(
    project: Project, tmp_path: Path, when: str, is_kept: bool
) -> None:
    world = World(project.site.database, tmp_path / "incoming")
    world.spool_dir = tmp_path / "spool"
    world.spool_dir.mkdir()
    kill(project, when, world.spool_dir)
    (spooled,) = world.spool_dir.glob("ferry-*")
    assert (project.videos(), len(project.job_ids())) == (([1], 1) if is_kept else ([], 0))
    os.utime(spooled, (0, 0))
    with world.worker(retention={"spooled_seconds": 3600}) as runtime:
        assert SpoolSweep(runtime).go_round() == (0 if is_kept else 1)
    assert spooled.exists() is is_kept

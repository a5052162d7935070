"""No job's contents come into the caretaker's memory, whatever it does with the job.

On PostgreSQL. SQLite is a part of the process that uses it, and rewrites the whole row in its memory for each UPDATE.
"""

import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select, update

from blobferry import Client
from blobferry.sql.tables import jobs
from dev.services import valkey
from dev.waiting import wait_until
from models import Database
from tests.models.rows import ago

SIZE = 256 * 1024
PIECE = 1024  #: bytes in a row that count as contents
CHECKOUT = Path(__file__).parents[2]


def memory(pid: int) -> Iterator[bytes]:
    """What the process has written into its memory, region by region."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, rights = line.split()[:2]
            if rights.startswith("rw"):
                first, last = (int(address, 16) for address in addresses.split("-"))
                with suppress(OSError):  # unmapped meanwhile
                    file.seek(first)
                    yield file.read(last - first)


def test_the_caretaker_has_no_contents_of_a_job_in_its_memory(postgres_database: Database, tmp_path: Path) -> None:
    database, contents = postgres_database, os.urandom(SIZE)
    old_request = {"path": "/old", "contents": {"base64": b64encode(contents).decode()}, "overwrite": True}
    changes = {
        "due": {},
        "of an earlier version": {"request": old_request, "request_version": 1, "contents": None},
        "dead": {"state": "running", "worker": "w@h:1", "token": 1, "lease_expires_at": ago(60)},
        "cancelled": {"cancel_requested": True},
        "overdue": {"deadline": ago(60)},
        "finished": {"state": "succeeded", "finished_at": ago(60 * 24 * 3600)},
    }
    url = database.engine.url.render_as_string(hide_password=False)
    with Client(engine=database.engine) as client, database.begin() as session:
        for name, values in changes.items():
            job = client.put_content(f"/{name.replace(' ', '-')}", contents, session=session.connection())
            session.execute(update(jobs).where(jobs.c.id == job.id).values(labels={"is": name}, **values))
    with valkey() as broker:
        storage = {"DRIVER": "local", "ROOTDIRECTORY": str(tmp_path)}
        variables = {
            "BLOBFERRY_DATABASE_URL": url,
            "BLOBFERRY_BROKER_URL": broker.url,
            **{f"BLOBFERRY_STORAGES__DEFAULT__{name}": value for name, value in storage.items()},
        }
        command = [sys.executable, "-m", "worker", "sweep", "--loop"]
        with subprocess.Popen(command, cwd=CHECKOUT, env=os.environ | variables, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: is_swept(database), 60, "the caretaker has changed, published and pruned")
                found = list(memory(process.pid))
            finally:
                process.terminate()
    assert any(broker.url.encode() in region for region in found), "what it has is seen"
    for what in (contents, b64encode(contents)):
        assert not any(what[start : start + PIECE] in region for region in found for start in (0, len(what) // 2))


def is_swept(database: Database) -> bool:
    """Whether three jobs have a message, two have ended, and the last is gone."""
    with database.begin() as session:
        rows = session.execute(select(jobs.c.state, jobs.c.published_at)).all()
    ended = sum(row.state in ("cancelled", "failed") for row in rows)
    return (len(rows), ended, sum(row.published_at is not None for row in rows)) == (5, 2, 3)

"""A web process that spools uploads and submits their jobs, and whose children are killed at random points.

Run as a script: ``web_process.py DATABASE_URL BROKER_URL SPOOL_DIR TRIES SEED``. It forks a child, which submits one
upload after the other, each in a transaction with a row of the app's own; every fifth transaction is rolled back. It
kills the child with SIGKILL after a moment, and forks the next one, until so many uploads have been begun.
"""

import hashlib
import io
import os
import random
import signal
import sys
import time
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from blobferry import Client
from blobferry.sql.database import open_engine

LONGEST_LIFE = 0.4  #: seconds of a child, from its first upload on: some are killed in that one, some in a later one


def submit_for_ever(database_url: str, broker_url: str, spool_dir: Path, begun: Path, seed: int) -> None:
    """Submit upload after upload; ``begun`` grows by a byte for each."""
    chance, engine = random.Random(seed), open_engine(database_url)
    ferry = Client(engine=engine, broker_url=broker_url, spool_dir=spool_dir)
    counted = os.open(begun, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        os.write(counted, b".")
        data = chance.randbytes(chance.choice((0, 10, 5_000, 400_000)))
        upload = ferry.spool(io.BytesIO(data), size=len(data))
        with Session(engine) as session, session.begin() as transaction:
            name = upload.path.name
            digest = hashlib.sha256(data).hexdigest()
            session.execute(text("INSERT INTO app (name, digest) VALUES (:n, :d)"), {"n": name, "d": digest})
            ferry.write_stream(f"/app/{name}", upload, session=session)
            if chance.random() < 0.2:
                transaction.rollback()


def main(database_url: str, broker_url: str, spool_dir: str, tries: str, seed: str) -> None:
    """Fork and kill children until so many uploads have been begun."""
    chance, begun, kills = random.Random(int(seed)), Path(spool_dir).with_name("begun"), 0
    while (size := begun.stat().st_size if begun.exists() else 0) < int(tries):
        child = os.fork()
        if not child:
            submit_for_ever(database_url, broker_url, Path(spool_dir), begun, chance.randrange(10**9) + kills)
        while (begun.stat().st_size if begun.exists() else 0) == size:
            time.sleep(0.001)
        time.sleep(chance.random() * LONGEST_LIFE)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, f"a child ended by itself: {status}"
        kills += 1
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

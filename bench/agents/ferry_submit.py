"""Submits jobs as a web app does: ``ferry_submit.py '{"operation": "put_content", "count": 1000, …}'``.

Runs against the code of any checkout, so it knows nothing of Blobferry but its public Client. Prints what it took, as
JSON. Modes: ``one`` by one, ``many`` by ``submit_many``, ``transaction``: all in one of the app's own. A backlog is
made in the quickest way there is.
"""

import json
import os
import sys
import time

from sqlalchemy.orm import Session

import blobferry
from blobferry import Client
from blobferry.sql.database import open_engine


def requests(what):
    """The keyword arguments of each job."""
    contents = bytes(range(256)) * (what.get("size", 0) // 256)
    for number in range(what["first"], what["first"] + what["count"]):
        path = f"{what['prefix']}{number:08}"
        if what["operation"] == "put_content":
            yield {"path": path, "contents": contents}
        elif what["operation"] == "write_stream":
            yield {"path": path, "source": "file://" + what["files"].format(number % what["distinct"])}
        else:
            yield {"path": path, **what["arguments"]}


def submit(ferry, what):
    """Submit them; return the mode that was taken, and the id of the last job if it is known."""
    mode, method = what["mode"], getattr(ferry, what["operation"])
    if mode == "backlog":
        mode = "many" if hasattr(ferry, "submit_many") else "transaction"
    if mode == "many" and not hasattr(ferry, "submit_many"):
        return "missing"
    if mode == "many":
        for _ in ferry.submit_many(_many(what)):
            pass
    elif mode == "transaction":
        waiting, engine = list(requests(what)), open_engine(os.environ["BLOBFERRY_DATABASE_URL"])
        while waiting:
            batch, waiting = waiting[:500], waiting[500:]
            with Session(engine) as session, session.begin():
                for arguments in batch:
                    method(**arguments, session=session)
    else:
        for arguments in requests(what):
            method(**arguments)
    return mode


def _many(what):
    make = getattr(blobferry.NewJob, what["operation"])
    return (make(**arguments) for arguments in requests(what))


def main() -> None:
    """Submit and report."""
    what = json.loads(sys.argv[1])
    with Client.from_env() as ferry:
        started, cpu = time.monotonic(), time.process_time()
        mode = submit(ferry, what)
        took = {"wall": time.monotonic() - started, "cpu": time.process_time() - cpu, "mode": mode}
    print(json.dumps(took))


if __name__ == "__main__":
    main()

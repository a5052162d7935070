"""``make demo``: a file goes up, its worker is killed on the way, another one finishes it.

Everything is real and on this machine: Valkey, an S3 server, Flower, SQLite, Celery workers, SIGKILL.
Nothing stays behind.
"""

import argparse
import hashlib
import json
import os
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from blobferry import Client, Job, JobState
from dev.process import work_directory
from dev.proxies.s3_recorder import RecordedRequest, Recorder, recorder
from dev.services import flower, moto, valkey
from dev.stack import BUCKET, Stack

MIB = 1024 * 1024
SIZE = 256 * MIB
PART_SIZE = 8 * MIB
PATH = "/demo/blob.bin"
KILL_AT = 0.4  #: of the blob
LOOK_INTERVAL = 0.02  #: seconds
GIVE_UP_AFTER = 120.0  #: seconds

SETTINGS = {
    "BLOBFERRY_TRANSFER__PART_SIZE": str(PART_SIZE),
    # By default a dead worker is noticed within 35 s, which is long for a demo.
    "BLOBFERRY_LEASE__SECONDS": "5",
    "BLOBFERRY_LEASE__HEARTBEAT_SECONDS": "1",
    "BLOBFERRY_LEASE__MARGIN_SECONDS": "1",
    "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "0.5",
}


class Demo:
    """One run of the demo."""

    def __init__(self, stack: Stack, requests: Recorder, client: Client, console: Console) -> None:
        self._stack = stack
        self._requests = requests
        self._client = client
        self._console = console
        self.submitted_at = self.killed_at = self.seen_at = 0.0

    def run(self, file: Path) -> Job:
        """Submit the file, kill the worker on the way, start another; return the finished job."""
        bar = Progress(TextColumn("  {task.description:<26}"), BarColumn(40), DownloadColumn(), console=self._console)
        with ExitStack() as workers, bar:
            first = workers.enter_context(self._stack.worker("worker-1"))
            self.submitted_at = time.time()
            job = self._client.write_stream(PATH, file)
            task = bar.add_task("submitted", total=file.stat().st_size)
            while not job.is_final:
                if time.time() - self.submitted_at > GIVE_UP_AFTER:
                    raise SystemExit(f"the job is still {job.state} after {GIVE_UP_AFTER:g} s: {job.error_message}")
                bar.update(task, completed=job.bytes_done, description=f"{job.state}, attempt {job.attempt}")
                if not self.killed_at and job.size and job.bytes_done >= KILL_AT * job.size:
                    first.kill9()
                    self.killed_at = time.time()
                    bar.console.print(
                        f"  SIGKILL to the worker's process group at {job.bytes_done * 100 // job.size} %"
                    )
                    workers.enter_context(self._stack.worker("worker-2"))
                    bar.console.print("  another worker is up; it waits for the dead one's lease to run out")
                time.sleep(LOOK_INTERVAL)
                job = self._client.get(job.id)
            self.seen_at = time.time()
            bar.update(task, completed=job.bytes_done, description=f"{job.state}, attempt {job.attempt}")
        return job

    def report(self, job: Job, file: Path) -> bool:
        """Print what happened; True if the blob is the file and nothing is left over."""
        parts = [request for request in self._requests.requests() if request.is_part]
        stats = [request for request in self._requests.requests() if request.method == "HEAD"]
        sent = sum(part.received for part in parts)
        size = file.stat().st_size
        resumed = [part.started_at for part in parts if part.status == 200 and part.started_at > self.killed_at]
        s3 = self._stack.s3.client()
        blob = _sha256_of_blob(s3)
        unfinished = s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        s3.close()
        first_byte = min((r.started_at for r in self._requests.requests() if r.method == "PUT"), default=0.0)
        rows = {
            "job": f"{job.state}, {job.attempt} attempts" + (f": {job.error_message}" if job.error_message else ""),
            "parts": f"{-(-size // PART_SIZE)} of {PART_SIZE // MIB} MiB, {_whole(parts)} arrived whole",
            "bytes sent twice": f"{sent - size:,} of {size:,}, those in flight at the kill",
            "kill to the next part": f"{min(resumed) - self.killed_at:.1f} s, of which up to 5 s are the lease"
            if resumed and self.killed_at
            else "the worker was not killed: too small a file",
            "submit to the first byte": f"{first_byte - self.submitted_at:.2f} s",
            "Stat poll": f"{stats[-1].status if stats else '?'}, {job.result['size'] if job.result else 0:,} bytes; "
            f"succeeded was visible {self.seen_at - (stats[-1].ended_at if stats else 0):.2f} s later",
            "SHA-256 of the file": _sha256(file),
            "SHA-256 of the blob": blob,
            "unfinished uploads": str(len(unfinished)),
        }
        for name, value in rows.items():
            self._console.print(f"  {name:<26}{value}")
        return job.state == JobState.SUCCEEDED and blob == rows["SHA-256 of the file"] and not unfinished


def main() -> None:
    """Run the demo; exit status 0 only if the blob is the file and no unfinished upload is left."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--file", type=Path, help="a file of your own instead of 256 MiB of random bytes")
    given = parser.parse_args().file
    if given is not None and not given.is_file():
        raise SystemExit(f"make demo: there is no file {given}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as services, work_directory("demo") as directory:
        console.print("Blobferry: starting Valkey, an S3 server (moto), Flower and a worker …")
        broker = services.enter_context(valkey(password=secrets.token_urlsafe(24)))
        s3 = services.enter_context(moto())
        requests = services.enter_context(recorder(s3.endpoint, directory))
        monitoring = services.enter_context(flower(broker.url))
        stack = Stack(broker.url, f"sqlite:///{directory}/blobferry.db", s3, directory, requests.endpoint, SETTINGS)
        stack.prepare()
        file = given.resolve() if given else _random_file(stack.incoming / "blob.bin")
        stack = replace(stack, settings={**SETTINGS, "BLOBFERRY_SOURCES__FILE_ROOTS": json.dumps([str(file)])})
        client = services.enter_context(stack.client())
        console.print(f"  Flower shows it all at {monitoring.url} (while this runs)")
        demo = Demo(stack, requests, client, console)
        ok = demo.report(demo.run(file), file)
    console.print("The blob is the file, byte for byte." if ok else "Something is wrong, see above.")
    sys.exit(0 if ok else 1)


def _random_file(path: Path) -> Path:
    with path.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_blob(s3: Any) -> str:
    digest = hashlib.sha256()
    for piece in s3.get_object(Bucket=BUCKET, Key=PATH[1:])["Body"].iter_chunks(MIB):
        digest.update(piece)
    return digest.hexdigest()


def _whole(parts: list[RecordedRequest]) -> int:
    return len({part.part_number for part in parts if part.status == 200})


if __name__ == "__main__":
    main()

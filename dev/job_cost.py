"""``python -m dev.job_cost``: CPU of one small job in the process that runs it, on a real PostgreSQL and moto.

The process calls ``run_job`` for each job, as a worker child does; the servers are processes of their own. Celery is
not in it, and no job is run in a batch. ``--profile`` prints where the time goes instead.
"""

import argparse
import cProfile
import logging
import pstats
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from rich.console import Console

from blobferry.contract import check_request
from blobferry.jobs.submission import insert_job
from dev.process import work_directory
from dev.services import S3Service, create_bucket, moto, postgres, postgres_database
from models import Database
from worker.driver import Driver
from worker.jobs.outcome import Finished
from worker.jobs.runner import run_job
from worker.runtime import Runtime
from worker.settings import Settings, SourcesSettings, TransferSettings

BUCKET: Final = "costs"
SIZE: Final = 4096  #: bytes of each blob


def runtime_of(s3: S3Service, database_url: str, directory: Path) -> Runtime:
    """The runtime of a worker child whose one storage is the bucket."""
    settings = Settings.model_construct(
        database_url=SecretStr(database_url),
        concurrency=2,
        sources=SourcesSettings(file_roots=(directory,)),
        transfer=TransferSettings(batch_jobs=1),
    )
    parameters = {
        "bucket": BUCKET,
        "regionendpoint": s3.endpoint,
        "region": s3.region,
        "forcepathstyle": True,
        "accesskey": s3.access_key,
        "secretkey": s3.secret_key,
    }
    return Runtime(settings, drivers={"default": Driver.from_parameters(parameters)})


def submit(database: Database, operation: str, number: int, file: Path) -> str:
    """Insert a job of that operation; its id."""
    asked = {"path": f"/{operation}/{number}"}
    if operation == "put_content":
        request = check_request(operation, {**asked, "contents": bytes(SIZE)})
    else:
        request = check_request(operation, {**asked, "source": file.as_uri()})
    with database.begin() as session:
        return str(insert_job(session.connection(), request)["id"])


def run_all(runtime: Runtime, job_ids: list[str]) -> list[float]:
    """Run the jobs; return the CPU milliseconds of this process for each."""
    found = []
    for job_id in job_ids:
        began = time.process_time()
        outcome = run_job(runtime, job_id)
        found.append((time.process_time() - began) * 1000)
        assert isinstance(outcome, Finished), outcome
        assert outcome.error is None, outcome
    return found


def main() -> None:
    """Measure, and print one line for each operation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as services, work_directory("job-cost") as directory:
        s3 = services.enter_context(moto())
        create_bucket(s3, BUCKET)
        url = services.enter_context(postgres_database(services.enter_context(postgres())))
        config = Config(str(Path(__file__).parents[1] / "alembic.ini"))
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        command.upgrade(config, "head")
        file = directory / "small.bin"
        file.write_bytes(bytes(SIZE))
        runtime = runtime_of(s3, url, directory)
        for operation in ("put_content", "write_stream"):
            jobs = [submit(runtime.database, operation, number, file) for number in range(asked.jobs + 20)]
            run_all(runtime, jobs[:20])  # what a child does once in its life
            profile = cProfile.Profile()
            if asked.profile:
                profile.enable()
            found = run_all(runtime, jobs[20:])
            profile.disable()
            if asked.profile:
                pstats.Stats(profile).sort_stats("cumulative").print_stats(90)
            console.print(
                f"{operation}: {asked.jobs} jobs of {SIZE} bytes, CPU of this process per job: "
                f"median {statistics.median(found):.1f} ms, mean {statistics.mean(found):.1f} ms"
            )
        runtime.close()


if __name__ == "__main__":
    main()

"""``python -m worker run | migrate | sweep | doctor``: the worker's own command line."""

import os
import signal
import sys
import threading
from socket import gethostname
from typing import Any, Final

import click

from blobferry import __version__
from blobferry.messages.job_messages import client_app
from blobferry.messages.publisher import Publisher
from blobferry.messages.server_kind import refuse_unfit_server
from blobferry.sql.database import reachable
from models.table_check import refuse_unmigrated
from worker.celery.drain_bound import bound_drain, bound_drain_of
from worker.celery.reads_process import ReadsStep, end_with
from worker.errors import BlobferryError, ConfigurationError
from worker.logs import configure_logging
from worker.maintenance.caretaker import Caretaker
from worker.maintenance.sweep_probes import ProbeSweep
from worker.maintenance.sweep_spool import SpoolSweep
from worker.maintenance.webhooks.webhook_post import WebhookPost
from worker.processes import processes_of_parent
from worker.runtime import Runtime, start_runtime
from worker.settings import load_settings

#: Seconds for which a caretaker does not try a broker that is away: no two steps of a sweep wait for it.
OUTAGE_PAUSE: Final = 2.0
LAST_ANSWERS: Final = 2.0  #: seconds for which a caretaker that ends waits for what endpoints answer


@click.group()
@click.version_option(__version__, message="blobferry-worker %(version)s")
def main() -> None:
    """Blobferry's worker."""


@main.command()
@click.option("--name", help="The worker's name in Flower. Two workers on one host need different names.")
@click.option("--only", type=click.Choice(["jobs", "reads"]), help="Serve only jobs, or only reads. Default: both.")
@click.option("--loglevel", default="INFO", show_default=True)
@click.option("--beside", type=int, hidden=True, help="The id of the worker process that it answers reads for.")
def run(name: str | None, only: str | None, loglevel: str, beside: int | None) -> None:
    """Run jobs until SIGTERM, which lets running jobs reach their next checkpoint first.

    Reads (stat, list, get_content, url_for) are answered while all slots are busy, too: by a process of their own.
    """
    settings = load_settings()
    for storage, parameters in settings.storages.items():
        if parameters.driver == "memory":
            problem = "a worker cannot use the memory store: its children share no memory. Use local or s3"
            raise ConfigurationError(f"storages.{storage}.driver", problem)
    refuse_unmigrated(settings.database_url.get_secret_value())
    refuse_unfit_server(client_app(settings.broker_url.get_secret_value(), settings.broker_options))
    # Importing it configures Celery, which needs settings that are known to be valid.
    from worker.app import QUEUES, app  # noqa: PLC0415

    pool: dict[str, Any] = {}
    if only is None and settings.reads:
        app.steps["worker"].add(ReadsStep)
        only = "jobs"
    if beside is not None:
        app.steps["worker"].clear()  # the other worker has a caretaker
        end_with(beside)
        start_runtime().warm_up()
        pool = {"pool": "threads", "concurrency": settings.reads}
    # Not app.worker_main, since each child would inherit the memory of Celery's command line.
    worker = app.Worker(
        hostname=f"{name}@{gethostname()}" if name else None,
        queues=QUEUES[only],
        loglevel=loglevel,
        without_gossip=True,
        without_mingle=True,
        **pool,
    )
    worker.start()
    sys.exit(worker.exitcode)


@main.command()
@click.option("--revision", default="head", show_default=True)
def migrate(revision: str) -> None:
    """Create the tables, or bring them up to date. Safe to run at any time, also twice at once."""
    # Alembic takes ten MiB, which the children of `run` need not inherit.
    from models import migrations  # noqa: PLC0415

    load_settings()
    with reachable():
        migrations.upgrade(revision)


@main.command()
@click.option("--loop", is_flag=True, help="Sweep until SIGTERM instead of once.")
@click.option("--of", "worker_id", hidden=True, help="Of the worker that is this process's parent.")
@click.option("--signals", type=int, hidden=True, help="File descriptor that tells of the parent's signals.")
@click.option("--runs-jobs", is_flag=True, hidden=True, help="That worker takes jobs, not reads alone.")
def sweep(loop: bool, worker_id: str | None, signals: int | None, runs_jobs: bool) -> None:
    """Publish due jobs, re-queue jobs of dead workers, abort uploads that no job needs."""
    configure_logging()
    settings = load_settings()
    runtime = Runtime(settings)
    app = client_app(settings.broker_url.get_secret_value(), settings.broker_options)
    publisher = Publisher(app, longest_pause=OUTAGE_PAUSE)
    processes = processes_of_parent(worker_id) if worker_id else None
    webhooks = WebhookPost(runtime)
    caretaker = Caretaker(runtime, publisher.publish, processes, runs_jobs=runs_jobs)
    if not loop:
        click.echo(caretaker.sweep())
        SpoolSweep(runtime).go_round()
        webhooks.send_due()
        return
    ended = threading.Event()

    def end(*args: Any) -> None:
        ended.set()
        bound_drain(settings.drain_seconds)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if worker_id:
        threading.Thread(target=_listen, args=(caretaker, ended), name="listener", daemon=True).start()
    if signals is not None:
        bound = (os.getppid(), signals, settings.drain_seconds)
        threading.Thread(target=bound_drain_of, args=bound, name="signals", daemon=True).start()
    threading.Thread(target=SpoolSweep(runtime).loop, args=(ended.wait,), name="spool", daemon=True).start()
    threading.Thread(target=ProbeSweep(runtime).loop, args=(ended.wait,), name="probes", daemon=True).start()
    posting = threading.Thread(target=webhooks.loop, args=(ended,), name="webhooks", daemon=True)
    posting.start()
    caretaker.loop(ended)
    ended.set()
    caretaker.sign_off()
    posting.join(LAST_ANSWERS)
    runtime.close()


def _listen(caretaker: Caretaker, ended: threading.Event) -> None:
    """Take requests from the parent. The end of the input means that the parent is gone."""
    caretaker.listen(sys.stdin)
    ended.set()


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def doctor(as_json: bool) -> None:
    """Test database, broker and storages, and report what they do not guarantee.

    Writes small blobs below /.blobferry-doctor-… in each storage and removes them. Exit status 1 if something is
    broken.
    """
    # The children of `run` need not inherit it.
    from worker.doctor import examine, exit_status, json_report, text_report  # noqa: PLC0415

    configure_logging("ERROR")
    runtime = Runtime(load_settings())
    findings = examine(runtime)
    runtime.close()
    click.echo(json_report(findings) if as_json else text_report(findings))
    sys.exit(exit_status(findings))


def entry() -> None:
    """Run a command. A BlobferryError is printed as one line; exit status 2 for a configuration error, else 3.

    SIGTERM ends it from the first moment on. The kernel gives process 1, as which it runs in a container, no signal
    that it has no handler for. Those of Celery and of ``sweep --loop`` come later.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
    except ConfigurationError as error:
        click.echo(f"configuration: {error}", err=True)
        sys.exit(2)
    except BlobferryError as error:
        click.echo(str(error), err=True)
        sys.exit(3)


if __name__ == "__main__":
    entry()

"""The ``blobferry`` command: what Client does, from a shell.

Database and broker are BLOBFERRY_DATABASE_URL and BLOBFERRY_BROKER_URL. Results go to stdout, remarks and errors to
stderr. With ``--json``, stdout holds JSON and nothing else, errors included: ``{"error": code, "message": …}``, with
``job_id`` where there is a job; ``watch --json`` and commands that take several jobs print one object a line.

Exit status: 0 done or submitted; 1 the job failed or was cancelled, it is too late for what was asked, or the worker
answered a read with an error (no such path); 2 usage, also where the worker says so (a storage that it does not know);
3 database, broker or worker out of reach; 4 timeout; 130 interrupted. Of several jobs, the highest.
"""

import logging

import click

from blobferry.cli.control_commands import cancel, pause, resume, retry
from blobferry.cli.exit_status import Remark
from blobferry.cli.job_commands import jobs, status, uploads, watch
from blobferry.cli.read_commands import list_, stat, url
from blobferry.cli.submit_commands import delete, move, read, write


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Transfer blobs in the background, and watch them.

    Database and broker are read from BLOBFERRY_DATABASE_URL and BLOBFERRY_BROKER_URL.

    Exit status: 0 done or submitted, 1 the job failed or was cancelled, it is too late for what was asked, or a read
    ended in an error, 2 usage, 3 database, broker or worker out of reach, 4 timeout, 130 interrupted (the job goes on).
    """
    remarks = logging.StreamHandler()
    remarks.setFormatter(Remark())
    logger = logging.getLogger("blobferry")
    logger.addHandler(remarks)
    context.call_on_close(lambda: logger.removeHandler(remarks))


SUBMITTING = (write, read, move, delete)
READING = (stat, list_, url)
LOOKING = (status, watch, jobs, uploads)
CONTROLLING = (cancel, pause, resume, retry)

for command in (*SUBMITTING, *READING, *LOOKING, *CONTROLLING):
    main.add_command(command)

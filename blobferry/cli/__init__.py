"""The ``blobferry`` command: the methods of Client, from a shell.

Results go to stdout, remarks and errors to stderr. With ``--json``, stdout holds only JSON, errors included:
``{"error": code, "message": …}``, and ``job_id`` where there is a job. ``watch --json``, and commands that take several
jobs, print one object per line. The exit status of several jobs is the highest.
"""

import logging

import click

from blobferry import __version__
from blobferry.cli.control_commands import cancel, pause, resume, retry
from blobferry.cli.delivery_commands import deliveries, redeliver
from blobferry.cli.exit_status import Remark
from blobferry.cli.job_commands import jobs, status, uploads, watch
from blobferry.cli.listen_command import listen
from blobferry.cli.read_commands import list_, stat, url
from blobferry.cli.submit_commands import delete, move, read, write


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="blobferry %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Submit transfers of blobs to the workers, and watch and control them.

    Needs BLOBFERRY_DATABASE_URL, and BLOBFERRY_BROKER_URL for stat, list and 'read PATH -', and for url unless the
    worker's variables of the storage are set.

    \b
    Exit status:
      0    done, or submitted
      1    the job failed or was cancelled, the request came too late, or a read failed
      2    wrong usage
      3    database, broker or worker out of reach
      4    timeout
      130  interrupted; the job continues
    """
    remarks = logging.StreamHandler()
    remarks.setFormatter(Remark())
    logger = logging.getLogger("blobferry")
    logger.addHandler(remarks)
    context.call_on_close(lambda: logger.removeHandler(remarks))


for command in (write, read, move, delete, stat, list_, url, status, watch, jobs, uploads, listen):
    main.add_command(command)
for command in (cancel, pause, resume, retry, deliveries, redeliver):
    main.add_command(command)

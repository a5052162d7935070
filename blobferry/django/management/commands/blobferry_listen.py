"""``manage.py blobferry_listen``: tell the project of jobs that end, until it is interrupted."""

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from blobferry.django.ended_jobs import enqueue_missed, tell_of
from blobferry.django.ferries import ferry
from blobferry.errors import BlobferryError
from blobferry.jobs.listening import INTERVAL


class Command(BaseCommand):
    """Runs for ever, beside the web processes; let a supervisor start it again when it ends."""

    help = (
        "For each job that ends, enqueue the @task that it names by on_done or on_failed, send the signal job_finished,"
        " and call the functions added by @ferry.on. The database keeps under NAME how far it has come."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", nargs="?", default="django", help="Of its place; django.")
        parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="Repeatable.")
        parser.add_argument("--interval", type=float, default=INTERVAL, metavar="SECONDS", help="Between two looks; 1.")
        parser.add_argument("--database", help="An alias of DATABASES; that of BLOBFERRY unless given.")

    def handle(self, *args: Any, **options: Any) -> None:
        labels = dict(pair.partition("=")[::2] for pair in options["label"]) or None
        asked = ferry.using(options["database"]) if options["database"] else ferry
        try:
            enqueue_missed(asked, options["name"], labels)
            ends = asked.listen(options["name"], labels=labels, interval=options["interval"])
            self.stdout.write(f"listening as {options['name']} on the database {asked.alias}")
            with suppress(KeyboardInterrupt):
                for job in ends:
                    close_old_connections()
                    tell_of(asked, job)
                    asked._handlers.call(job)
                    if options["verbosity"] > 1:
                        self.stdout.write(f"{job.id} {job.state} {job.path}")
        except BlobferryError as error:
            raise CommandError(str(error)) from error

"""``manage.py blobferry_listen``: tell the project of jobs that end, until it is interrupted."""

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from blobferry.django.ended_jobs import enqueue_missed, tell_of
from blobferry.django.ferries import Ferry
from blobferry.errors import BlobferryError
from blobferry.jobs.listening import listen


class Command(BaseCommand):
    """Runs for ever, beside the web processes; let a supervisor start it again when it ends."""

    help = (
        "Send the signal job_finished for each job that ends, and enqueue the @task that it names by on_done or"
        " on_failed. The database keeps under NAME how far it has come."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", default="django", help="Of its place in the feed of ended jobs; django.")
        parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="Repeatable.")
        parser.add_argument("--interval", type=float, default=1.0, help="Seconds between two looks; 1.")
        parser.add_argument("--database", help="An alias of DATABASES; that of BLOBFERRY unless given.")

    def handle(self, *args: Any, **options: Any) -> None:
        labels = dict(pair.partition("=")[::2] for pair in options["label"]) or None
        try:
            ferry = Ferry(options["database"])
            enqueue_missed(ferry, options["name"], labels)
            ends = listen(ferry, options["name"], labels=labels, interval=options["interval"])
            self.stdout.write(f"listening as {options['name']} on the database {ferry.alias}")
            with suppress(KeyboardInterrupt):
                for job in ends:
                    close_old_connections()
                    tell_of(ferry, job)
                    if options["verbosity"] > 1:
                        self.stdout.write(f"{job.id} {job.state} {job.path}")
        except BlobferryError as error:
            raise CommandError(str(error)) from error

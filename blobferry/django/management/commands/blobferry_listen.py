"""``manage.py blobferry_listen``: call the project's functions for jobs that have ended."""

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from blobferry.django.ferries import ferry
from blobferry.errors import BlobferryError
from blobferry.jobs.listening import INTERVAL


class Command(BaseCommand):
    """The process for the functions that are added by ``@ferry.on``, in a module that an app imports in ``ready``."""

    help = "Call the functions added by @ferry.on for each job that ends, until Ctrl-C or an error that one raises."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="Under which the database keeps how far this has come.")
        parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="Repeatable.")
        parser.add_argument("--interval", type=float, default=INTERVAL, metavar="SECONDS", help="Between two looks; 1.")
        parser.add_argument("--database", help="An alias of DATABASES; that of BLOBFERRY unless given.")

    def handle(self, *args: Any, **options: Any) -> None:
        labels = dict(pair.partition("=")[::2] for pair in options["label"])
        asked = ferry.using(options["database"]) if options["database"] else ferry
        try:
            with suppress(KeyboardInterrupt):
                asked.handle(options["name"], labels=labels or None, interval=options["interval"])
        except BlobferryError as error:
            raise CommandError(str(error)) from error

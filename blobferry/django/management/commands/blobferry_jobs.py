"""``manage.py blobferry_jobs``: list jobs, or explain some."""

import io
import json
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from blobferry.cli.explanation import explanation
from blobferry.cli.job_tables import print_jobs, status_table
from blobferry.contract import OPERATIONS, JobState
from blobferry.django.ferries import Ferry
from blobferry.errors import BlobferryError

_FILTERS = ("state", "since", "until", "operation", "storage", "under", "limit")


class Command(BaseCommand):
    """Reads the project's database, and needs neither broker nor worker."""

    help = (
        "List jobs, the newest first; or show the jobs with these ids, why they are in their state, and what follows."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("job_ids", nargs="*", metavar="JOB", help="Explain this job.")
        parser.add_argument("--state", action="append", choices=[str(state) for state in JobState], help="Repeatable.")
        parser.add_argument("--since", metavar="TIME", help="Submitted then or later (ISO 8601 with zone).")
        parser.add_argument("--until", metavar="TIME", help="Submitted before then (ISO 8601 with zone).")
        parser.add_argument("--operation", choices=list(OPERATIONS))
        parser.add_argument("--storage", metavar="NAME", help="Submitted for this storage.")
        parser.add_argument("--under", metavar="PATH", help="For this path or one below it.")
        parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="Repeatable.")
        parser.add_argument("--limit", type=int, default=100, help="At most so many; 100.")
        parser.add_argument("--database", help="An alias of DATABASES; that of BLOBFERRY unless given.")
        parser.add_argument("--json", action="store_true", help="Print JSON: an array, or an object for each JOB.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            ferry = Ferry(options["database"])
            if options["job_ids"]:
                for job_id in options["job_ids"]:
                    self._explain(ferry, job_id, as_json=options["json"])
            else:
                self._list(ferry, options)
        except BlobferryError as error:
            raise CommandError(str(error)) from error

    def _list(self, ferry: Ferry, options: Mapping[str, Any]) -> None:
        labels = dict(pair.partition("=")[::2] for pair in options["label"])
        found = ferry.jobs(**{name: options[name] for name in _FILTERS}, labels=labels or None)
        if options["json"]:
            self.stdout.write(json.dumps([job.as_json() for job in found]))
            return
        with redirect_stdout(io.StringIO()) as printed:  # Django's stdout ends each write with a line break
            print_jobs(found)
        self.stdout.write(printed.getvalue(), ending="")

    def _explain(self, ferry: Ferry, job_id: str, *, as_json: bool) -> None:
        situation = ferry.situation(job_id)
        if as_json:
            self.stdout.write(json.dumps({**situation.as_json(), "explanation": str(explanation(situation))}))
            return
        for label, value in status_table(situation):
            self.stdout.write(f"{label:11} {value}")

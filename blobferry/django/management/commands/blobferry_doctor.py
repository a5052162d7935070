"""``manage.py blobferry_doctor``: find out by trying whether jobs of this project will run."""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from blobferry.django.diagnosis import examine_project


class Command(BaseCommand):
    """Exits with 1 if anything is an error."""

    help = "Try settings, database, broker and workers; say what is wrong and what to do. Nothing is left behind."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's; they are part of the report

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", help="An alias of DATABASES; that of BLOBFERRY unless given.")
        parser.add_argument("--json", action="store_true", help="Print a JSON array.")

    def handle(self, *args: Any, **options: Any) -> None:
        found = list(examine_project(options["database"]))
        if options["json"]:
            self.stdout.write(json.dumps([symptom._asdict() for symptom in found]))
        else:
            styles = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "error": self.style.ERROR}
            for symptom in found:
                self.stdout.write(f"{styles[symptom.level](f'{symptom.level:8}')} {symptom.subject}: {symptom.text}")
        if any(symptom.level == "error" for symptom in found):
            sys.exit(1)

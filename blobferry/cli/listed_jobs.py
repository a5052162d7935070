"""``blobferry write --from-file``: many jobs from a list, all of them or none."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from blobferry.cli import options
from blobferry.cli.exit_status import open_client, report, reported
from blobferry.client import Client
from blobferry.errors import ConflictError, InvalidRequestError
from blobferry.jobs.job_ids import JobIds
from blobferry.jobs.new_job import NewJob
from blobferry.redaction import printable, short_repr


class ListedJobs:
    """The jobs of a list: a source, a tab and a path on each line. Empty lines are skipped.

    ``how``: the options of each job. An idempotency key is that of the list: line 7 has the key ``KEY:7``.
    """

    def __init__(self, lines: Iterable[str], how: Mapping[str, Any]) -> None:
        self._lines = lines
        self._how = how
        self._skipped: list[int] = []  #: the numbers of empty lines
        self.line = 0  #: the number of the line that was read last
        self.missing = 0  #: files that do not exist here
        self.first_missing = ""

    def __iter__(self) -> Iterator[NewJob]:
        for line, text in enumerate(self._lines, start=1):
            self.line = line
            words = text.rstrip("\n").split("\t")
            if words == [""]:
                self._skipped.append(self.line)
                continue
            if len(words) != 2 or not all(words):
                raise InvalidRequestError(f"needs FILE or URL, a tab and PATH, got {short_repr(text.rstrip())}")
            yield self._job(*words)

    def line_of(self, position: int) -> int:
        """The number of the line that the job of this position is on."""
        line = position + 1
        for skipped in self._skipped:
            line += skipped <= line
        return line

    def _job(self, source: str, path: str) -> NewJob:
        file, how, key = options.absolute_file(source), dict(self._how), self._how["idempotency_key"]
        if key is not None:
            how["idempotency_key"] = f"{key}:{self.line}"
        if file is not None and not os.path.exists(file):
            self.missing += 1
            self.first_missing = self.first_missing or str(file)
        return NewJob.write_stream(path, file or source, **how)


def submit_listed(lines: Iterable[str], how: Mapping[str, Any], as_json: bool) -> None:
    """Submit the jobs of the list; print their ids. Exits with the status of an error, which names the line."""
    listed = ListedJobs(lines, how)
    with open_client(as_json) as client, reported(as_json):
        ids = _submitted(client, listed, as_json)
    for position, job_id in enumerate(ids):
        line = {"id": job_id, "line": listed.line_of(position)}
        click.echo(json.dumps(line) if as_json else job_id)
    if listed.missing:
        file = printable(listed.first_missing)
        click.echo(f"note: files that do not exist here: {listed.missing}, the first is {file}", err=True)
    if not as_json:
        jobs = f"{len(ids)} job" + ("" if len(ids) == 1 else "s")
        click.echo(f"{jobs} submitted; to list those that wait: blobferry jobs --state queued", err=True)


def _submitted(client: Client, listed: ListedJobs, as_json: bool) -> JobIds:
    try:
        return client.submit_many(listed)
    except ConflictError as error:
        line = listed.line_of(error.position or 0)
        sys.exit(report(ConflictError(error.idempotency_key, error.job_id), as_json, where=f"line {line}"))
    except InvalidRequestError as error:
        # The cause is the error of that job alone.
        sys.exit(report(error.__cause__ or error, as_json, where=f"line {listed.line}"))

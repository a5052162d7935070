"""``blobferry write --from-file``: many jobs from a list, all of them or none."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from blobferry.cli import options
from blobferry.cli.exit_status import followed, open_client, report, reported
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


def submit_into(
    directory: str, sources: Sequence[str], how: Mapping[str, Any], wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Submit a write of each source to its own name in the directory; print the ids, and with ``wait`` follow them."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    statuses = [0]
    with open_client(as_json) as client, reported(as_json):
        requests = [_into(directory, source, how) for source in sources]
        ids = client.submit_many(requests)
        for job_id, request in zip(ids, requests, strict=True):
            line = {"id": job_id, "path": request.arguments["path"]}
            if not (wait and as_json):
                click.echo(json.dumps(line) if as_json else job_id)
        if wait:
            statuses += [followed(client, job_id, timeout, as_json) for job_id in ids]
    sys.exit(max(statuses))


def _into(directory: str, source: str, how: Mapping[str, Any]) -> NewJob:
    file = options.absolute_file(source)
    name = file.name if file is not None else unquote(urlsplit(source).path).rpartition("/")[2]
    if not name or source == "-":
        raise InvalidRequestError(f"{short_repr(source)} has no name of its own to be written under {directory}")
    key = how["idempotency_key"]
    named = {} if key is None else {"idempotency_key": f"{key}:{name}"}
    return NewJob.write_stream(directory + name, file or source, **{**how, **named})


def _submitted(client: Client, listed: ListedJobs, as_json: bool) -> JobIds:
    try:
        return client.submit_many(listed)
    except ConflictError as error:
        line = listed.line_of(error.position or 0)
        sys.exit(report(ConflictError(error.idempotency_key, error.job_id), as_json, where=f"line {line}"))
    except InvalidRequestError as error:
        # The cause is the error of that job alone.
        sys.exit(report(error.__cause__ or error, as_json, where=f"line {listed.line}"))

"""The commands write, read, move and delete, which submit a job. ``-`` is standard input or output, up to 1 MiB."""

import os
import sys
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final, TextIO

import click

from blobferry.checks.arguments import MAX_CONTENT
from blobferry.cli import options
from blobferry.cli.exit_status import follow, open_client, reported
from blobferry.cli.listed_jobs import submit_into, submit_listed
from blobferry.cli.progress import print_json
from blobferry.cli.read_commands import answer, print_answer
from blobferry.client import Client
from blobferry.redaction import printable
from blobferry.values import Job

STANDARD: Final = "-"


@click.command()
@click.argument("words", metavar="FILE|URL|-... PATH", nargs=-1)
@click.option(
    "--from-file",
    "listed",
    type=click.File(encoding="utf-8", errors="surrogateescape"),
    metavar="LIST|-",
    help="Write many: a FILE or URL, a tab and a PATH on each line of LIST, or of standard input.",
)
@options.offset
@options.no_overwrite
@options.of_blob
@options.of_job
def write(
    words: tuple[str, ...],
    listed: TextIO | None,
    offset: int,
    no_overwrite: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Write a file, a URL or standard input to PATH.

    The path of FILE is made absolute, and the worker opens it on its own host. A URL is http:, https:, file: or blob:.
    With -, up to 1 MiB of standard input becomes the blob. With --offset, the blob keeps the bytes before it and loses
    those after it. Prints the id of the job.

    A PATH that ends with a slash is a directory: each FILE or URL is written into it under its own name, all of them or
    none. With --idempotency-key KEY, a.mp4 then has the key KEY:a.mp4.

    With --from-file, submits the jobs of all lines, or none if one of them is wrong; errors name the line. The options
    are those of each job; with --idempotency-key KEY, line 7 has the key KEY:7. Prints an id for each line that is not
    empty, or with --json {"id": …, "line": …}.
    """
    how["overwrite"] = not no_overwrite
    if listed is not None:
        given = ("words", "offset", "wait", "timeout")
        _refuse_given(*given, because="--from-file takes no FILE, PATH, --offset, --wait and --timeout")
        submit_listed(listed, how, as_json)
        return
    if len(words) < 2:
        raise click.UsageError(f"Missing argument '{'PATH' if words else 'FILE|URL|-'}'.")
    *sources, path = words
    if path.endswith("/"):
        _refuse_given("offset", because="a PATH that ends with a slash takes no --offset")
        submit_into(path, sources, how, wait, timeout, as_json)
        return
    if len(sources) > 1:
        raise click.UsageError(f"several files need a PATH that ends with a slash, got {path!r}")
    (source,) = sources
    if source == STANDARD:
        _refuse_given("offset", because="standard input replaces the whole blob; --offset needs a FILE")
        contents = sys.stdin.buffer.read(MAX_CONTENT + 1)
        if len(contents) > MAX_CONTENT:
            raise click.UsageError(
                f"standard input has more than {MAX_CONTENT} bytes; put them into a file and use: "
                f"blobferry write FILE {path}"
            )
        _submit(lambda client: client.put_content(path, contents, **how), wait, timeout, as_json)
        return
    file = options.absolute_file(source)
    missing = str(file) if file is not None and not os.path.exists(file) else None  # never raises
    _submit(lambda client: client.write_stream(path, file or source, offset, **how), wait, timeout, as_json, missing)


@click.command()
@click.argument("path")
@click.argument("dest", metavar="FILE|-")
@options.offset
@options.no_overwrite
@options.of_job
def read(
    path: str, dest: str, offset: int, no_overwrite: bool, wait: bool, timeout: float | None, as_json: bool, **how: Any
) -> None:
    """Read the blob at PATH into a file or to standard output.

    The path of FILE is made absolute, and the worker writes it on its own host. Prints the id of the job. With -,
    prints the bytes of the blob, up to 1 MiB, or with --json {"path": …, "base64": …}.
    """
    if dest == STANDARD:
        others = ("offset", "no_overwrite", "labels", "priority", "not_before", "deadline", "idempotency_key", "wait")
        _refuse_given(
            *others,
            "webhook",
            "webhook_secret",
            "reuse",
            because="reading to standard output takes only --storage, --timeout and --json",
        )
        patience = {} if timeout is None else {"timeout": timeout}
        contents = answer(lambda client: client.get_content(path, storage=how["storage"], **patience), as_json)
        if as_json:
            print_answer({"path": path, "base64": b64encode(contents).decode()})
            return
        stdout = sys.stdout.buffer
        stdout.write(contents)
        stdout.flush()
        return
    how["overwrite"] = not no_overwrite
    file = options.absolute_file(dest)
    missing = f"directory {file.parent}" if file is not None and not os.path.isdir(file.parent) else None
    _submit(lambda client: client.read_stream(path, file or dest, offset, **how), wait, timeout, as_json, missing)


@click.command()
@click.argument("source")
@click.argument("dest")
@click.option("--dest-storage", metavar="NAME", help="Move to this other storage.")
@options.no_overwrite
@options.of_job
def move(
    source: str, dest: str, no_overwrite: bool, wait: bool, timeout: float | None, as_json: bool, **how: Any
) -> None:
    """Move the blob at path SOURCE to path DEST.

    Prints the id of the job.
    """
    how["overwrite"] = not no_overwrite
    _submit(lambda client: client.move(source, dest, **how), wait, timeout, as_json)


@click.command()
@click.argument("path")
@options.of_job
def delete(path: str, wait: bool, timeout: float | None, as_json: bool, **how: Any) -> None:
    """Delete the blob at PATH and everything under it.

    Prints the id of the job.
    """
    _submit(lambda client: client.delete(path, **how), wait, timeout, as_json)


def _submit(
    ask: Callable[[Client], Job], wait: bool, timeout: float | None, as_json: bool, missing: str | None = None
) -> None:
    """Submit the job, note what is ``missing`` on this host, and with ``wait`` follow it to its end."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    with open_client(as_json) as client, reported(as_json):
        job = ask(client)
    if job.replaces is not None:
        click.echo(f"note: its key was that of job {job.replaces}, which has ended without success", err=True)
    if missing is not None:
        click.echo(f"note: {printable(missing)} does not exist here; the worker needs it at that path", err=True)
    if as_json and not wait:
        print_json(job)
    if not as_json:
        click.echo(job.id)
    if wait:
        follow(job.id, timeout, as_json, every_change=False)
    elif not as_json:
        click.echo(f"{job.state}; to watch it: blobferry watch {job.id}", err=True)


def _refuse_given(*names: str, because: str) -> None:
    context = click.get_current_context()
    if any(context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE for name in names):
        raise click.UsageError(because)

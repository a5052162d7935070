"""Options that several commands have."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import click

from blobferry.checks.arguments import MAX_PRIORITY

Function = TypeVar("Function", bound=Callable[..., Any])


def moment(context: click.Context, parameter: click.Parameter, word: str | None) -> datetime | None:
    """The time that was typed."""
    try:
        then = None if word is None else datetime.fromisoformat(word)
    except ValueError:
        raise click.BadParameter(f"needs a time such as 2030-05-01T06:00:00+02:00, got {word!r}") from None
    if then is not None and then.tzinfo is None:
        raise click.BadParameter(f"needs a zone, such as {word}+00:00, got {word!r}")
    return then


def _pairs(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> Mapping[str, str] | None:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"needs NAME=VALUE, got {word!r}")
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice")
        pairs[name] = value
    return pairs or None


storage = click.option("--storage", default="default", show_default=True, help="Name of a storage the worker knows.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
timeout = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after this; the job goes on."
)
offset = click.option("--offset", type=int, default=0, metavar="BYTES", show_default=True, help="Begin at this byte.")
no_overwrite = click.option("--no-overwrite", is_flag=True, help="Fail if there is something at the destination.")


def labels(help: str) -> Callable[[Function], Function]:
    """Labels, to be given or to be looked for."""
    return click.option("--label", "labels", multiple=True, callback=_pairs, metavar="NAME=VALUE", help=help)


several = click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
wait = click.option("--wait", is_flag=True, help="Wait for the end of the job and show its progress.")

_JOB = (
    storage,
    labels("Kept with the job; repeatable."),
    click.option(
        "--priority", type=click.IntRange(0, MAX_PRIORITY), default=0, show_default=True, help="Higher first."
    ),
    click.option("--not-before", callback=moment, metavar="TIME", help="ISO 8601 with zone; the job waits until then."),
    click.option("--deadline", callback=moment, metavar="TIME", help="ISO 8601 with zone; not done by then, it fails."),
    click.option("--idempotency-key", metavar="KEY", help="Submitting the same again finds the first job."),
    wait,
    timeout,
    as_json,
)
_BLOB = (
    click.option("--content-type", metavar="TYPE", help="The blob's media type, such as video/mp4."),
    click.option(
        "--metadata", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="Kept with the blob; repeatable."
    ),
)


def of_job(function: Function) -> Function:
    """The options of every command that submits a job."""
    for option in reversed(_JOB):
        function = option(function)
    return function


def of_blob(function: Function) -> Function:
    """The options of a command that writes a blob."""
    for option in reversed(_BLOB):
        function = option(function)
    return function

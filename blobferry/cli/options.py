"""Options that several commands share."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from blobferry.checks.arguments import MAX_PRIORITY

Function = TypeVar("Function", bound=Callable[..., Any])


_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://.*|file:.*", re.DOTALL | re.IGNORECASE)


_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def absolute_file(word: str) -> Path | None:
    """The absolute path of a file; None for a URL."""
    return None if _URL.fullmatch(word) else Path(word).absolute()


def moment(context: click.Context, parameter: click.Parameter, word: str | None) -> datetime | None:
    """Parse a time in ISO 8601 with a zone."""
    try:
        then = None if word is None else datetime.fromisoformat(word)
    except ValueError:
        raise click.BadParameter(f"needs a time such as 2030-05-01T06:00:00+02:00, got {word!r}") from None
    if then is not None and then.tzinfo is None:
        raise click.BadParameter(f"needs a time with a zone, such as {word}+00:00, got {word!r}")
    return then


def due(context: click.Context, parameter: click.Parameter, word: str | None) -> datetime | timedelta | None:
    """Parse a time as above, or a duration from now such as 90s, 15m, 1h or 7d."""
    duration = _DURATION.fullmatch(word or "")
    return timedelta(**{_UNITS[duration[2]]: int(duration[1])}) if duration else moment(context, parameter, word)


def past(context: click.Context, parameter: click.Parameter, word: str | None) -> datetime | None:
    """Parse a time as above, or a duration before now."""
    then = due(context, parameter, word)
    return datetime.now(UTC) - then if isinstance(then, timedelta) else then


def _pairs(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> Mapping[str, str] | None:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"needs NAME=VALUE, got {word!r}")
        if name in pairs:
            raise click.BadParameter(f"the name {name!r} is given twice")
        pairs[name] = value
    return pairs or None


storage = click.option(
    "--storage", default="default", show_default=True, metavar="NAME", help="A storage of the worker."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")
timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop waiting after this; the job continues.",
)
offset = click.option("--offset", type=int, default=0, metavar="BYTES", show_default=True, help="Start at this byte.")
no_overwrite = click.option("--no-overwrite", is_flag=True, help="Fail if the destination exists.")


def labels(help: str) -> Callable[[Function], Function]:
    """The option --label."""
    return click.option("--label", "labels", multiple=True, callback=_pairs, metavar="NAME=VALUE", help=help)


several = click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
wait = click.option("--wait", is_flag=True, help="Wait until the job ends, and show its progress.")

_JOB = (
    storage,
    labels("For the job; repeatable."),
    click.option(
        "--priority", type=click.IntRange(0, MAX_PRIORITY), default=0, show_default=True, help="Higher first."
    ),
    click.option("--not-before", callback=due, metavar="TIME|1h", help="Do not run before then (ISO 8601 with zone)."),
    click.option("--deadline", callback=due, metavar="TIME|1h", help="Fail if not done by then (ISO 8601 with zone)."),
    click.option("--idempotency-key", metavar="KEY", help="Repeating the command returns the first job."),
    click.option("--webhook", metavar="URL", help="Post each end of the job there, signed (Standard Webhooks)."),
    click.option("--webhook-secret", metavar="NAME", help="Sign by this secret of the worker; 'default' unless given."),
    click.option("--reuse", type=click.Choice(["failed"]), help="Use the key of a failed or cancelled job again."),
    wait,
    timeout,
    as_json,
)
_BLOB = (
    click.option("--content-type", metavar="TYPE", help="Media type of the blob, such as video/mp4."),
    click.option("--metadata", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="For the blob; repeatable."),
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

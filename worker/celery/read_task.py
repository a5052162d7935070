"""Reads: tasks whose result is the answer. No row, no lease, no retry but the store's own: somebody waits.

What they answer is JSON; bytes in kombu's form of it.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from blobferry.checks.arguments import MAX_CONTENT
from blobferry.contract import Request, check_request
from worker.celery.task_guard import StrictTask
from worker.driver import Driver
from worker.errors import BlobferryError, InvalidRequestError, UnexpectedError
from worker.runtime import Runtime, current_runtime

logger = logging.getLogger(__name__)


class ReadTask(StrictTask):
    """A Celery task that answers at once, or ends in FAILURE with our error."""

    abstract = True
    acks_late = False  # given back half an hour later, it would answer nobody
    retry_on_worker_lost = False
    max_retries = 0
    resultrepr_maxsize = 0  # an answer in the log or in Flower could be a signed URL, or somebody's secret

    def answer(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """What the driver says."""
        return answer(current_runtime(), operation, arguments)


def answer(runtime: Runtime, operation: str, arguments: Mapping[str, Any]) -> Any:
    """Check the arguments, ask the driver of their storage, and return what it says. Raises BlobferryError."""
    asked = check_request(operation, arguments)
    try:
        return ANSWERS[operation](runtime.driver(asked.storage), asked)
    except BlobferryError:
        raise
    except Exception as error:  # a bug, or a library's surprise: whoever asked knows our errors only
        logger.exception("unexpected error", extra={"operation": operation, "path": asked.path})
        raise UnexpectedError(f"{type(error).__name__}: {error}") from error


def _get_content(driver: Driver, asked: Request) -> bytes:
    with driver.read_stream(asked.path) as stream:  # not get_content: a child's memory is bounded, blobs grow
        contents = bytes(stream.read(MAX_CONTENT + 1))
    if len(contents) > MAX_CONTENT:
        raise InvalidRequestError(
            f"get_content: {asked.path} has more than the {MAX_CONTENT} bytes that a result carries; use read_stream"
        )
    return contents


def _stat(driver: Driver, asked: Request) -> dict[str, Any]:
    return driver.stat(asked.path).as_json()


def _list(driver: Driver, asked: Request) -> list[str]:
    return driver.list(asked.path)


def _url_for(driver: Driver, asked: Request) -> str:
    options = dict(asked.arguments.get("options") or {})
    if "expiry" in options:
        options["expiry"] = datetime.fromisoformat(options["expiry"])
    return driver.url_for(asked.path, options)


ANSWERS: Final[Mapping[str, Callable[[Driver, Request], Any]]] = {
    "get_content": _get_content,
    "stat": _stat,
    "list": _list,
    "url_for": _url_for,
}

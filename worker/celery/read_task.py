"""Reads: tasks whose result is the answer, as JSON, with bytes encoded by kombu.

They have no row, no lease and no retry except the store's own, because a caller is waiting.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from blobferry.checks.arguments import MAX_CHILDREN, MAX_CONTENT
from blobferry.contract import Request, check_request
from blobferry.signing.url_terms import given_options
from worker.celery.task_guard import StrictTask
from worker.driver import Driver
from worker.errors import BlobferryError, InvalidRequestError, UnexpectedError
from worker.runtime import Runtime, current_runtime

logger = logging.getLogger(__name__)


class ReadTask(StrictTask):
    """A Celery task that answers at once, or ends in FAILURE with our error."""

    abstract = True
    acks_late = False  # a read that is redelivered half an hour later has no caller any more
    retry_on_worker_lost = False
    max_retries = 0
    resultrepr_maxsize = 0  # in the log or in Flower an answer could show a signed URL or another secret

    def answer(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """The driver's answer. Raises BlobferryError."""
        return answer(current_runtime(), operation, arguments)


def answer(runtime: Runtime, operation: str, arguments: Mapping[str, Any]) -> Any:
    """Check the arguments and return the answer of their storage's driver. Raises BlobferryError."""
    asked = check_request(operation, arguments, keys=runtime.keys)
    try:
        return ANSWERS[operation](runtime.driver(asked.storage), asked)
    except BlobferryError:
        raise
    except Exception as error:  # a bug, ours or a library's; clients know our errors only
        logger.exception("unexpected error", extra={"operation": operation, "path": asked.path})
        raise UnexpectedError(f"{type(error).__name__}: {error}") from error


def _get_content(driver: Driver, asked: Request) -> bytes:
    with driver.read_stream(asked.path) as stream:  # not get_content: the blob may be too large for a child's memory
        contents = bytes(stream.read(MAX_CONTENT + 1))
    if len(contents) > MAX_CONTENT:
        raise InvalidRequestError(
            f"get_content: {asked.path} has more than {MAX_CONTENT} bytes, the limit of a result; use read_stream"
        )
    return contents


def _stat(driver: Driver, asked: Request) -> dict[str, Any]:
    return driver.stat(asked.path).as_json()


def _list(driver: Driver, asked: Request) -> list[str]:
    after, limit = asked.arguments.get("after"), asked.arguments.get("limit")
    children = driver.list(asked.path, recursive=asked.arguments.get("recursive", False))
    if after is not None:
        children = [child for child in children if child > after]
    if limit is None and len(children) > MAX_CHILDREN:
        raise InvalidRequestError(
            f"list: {asked.path} has {len(children)} children, and an answer holds at most {MAX_CHILDREN}; ask for "
            f"them in turns with limit={MAX_CHILDREN} and after= the last one that you have"
        )
    return children[:limit]


def _url_for(driver: Driver, asked: Request) -> str:
    return driver.url_for(asked.path, _url_options(asked))


def _urls_for(driver: Driver, asked: Request) -> dict[str, Any]:
    options = _url_options(asked)
    urls = [driver.url_for(path, options) for path in asked.arguments["paths"]]
    return {"urls": urls, "headers": dict(urls[0].headers)}  # the same for all of them


def _url_options(asked: Request) -> dict[str, Any]:
    return given_options(asked.arguments.get("options"))


ANSWERS: Final[Mapping[str, Callable[[Driver, Request], Any]]] = {
    "get_content": _get_content,
    "stat": _stat,
    "list": _list,
    "url_for": _url_for,
    "urls_for": _urls_for,
}

"""A bare task, sent by Celery's own means: its job gets a row when the message arrives, and is durable from then on."""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.json import dumps

from blobferry.checks.arguments import MAX_CONTENT, check_job_id
from blobferry.contract import check_request
from blobferry.jobs.idempotency import asks_the_same
from blobferry.jobs.submission import insert_job
from blobferry.messages.job_messages import KEPT_OPTIONS
from models import queries
from worker.errors import ConfigurationError, InvalidRequestError
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

#: Bytes of links, chain and chord: the row holds them, and each message of the job carries them again.
MAX_OPTIONS: Final = 4 * MAX_CONTENT


def make_row(runtime: Runtime, request: Any, operation: str, arguments: Mapping[str, Any]) -> bool:
    """Insert the row of a bare task. Safe to repeat; False if the job was pruned, or exists with other arguments.

    Args:
        request: Celery's request of the task; its id becomes the job's id.
        operation: the name of the operation.
        arguments: the keyword arguments of the task, not yet checked. Raises InvalidRequestError.
    """
    try:
        asked = check_request(operation, arguments, keys=runtime.keys)
    except InvalidRequestError:
        if _is_known(runtime, request.id):  # its result must stay; a replayed message of a row shows no contents
            logger.warning("message ignored: its job id exists with other arguments", extra={"job_id": request.id})
            return False
        raise
    options = runtime.sealer.kept_options(_storable(_options(request)))
    with runtime.database.begin() as session:
        row = insert_job(
            session.connection(),
            asked,
            job_id=request.id,
            sealer=runtime.sealer,
            message_options=options or None,
            parent_id=_id_or_none(request.parent_id),
            root_id=_id_or_none(request.root_id),
        )
        if queries.is_pruned(session, request.id):  # after the insert, since pruning may commit before it
            session.rollback()
            logger.info("message ignored: its job has been pruned", extra={"job_id": request.id})
            return False
    if row["id"] != request.id:
        logger.info(
            "message ignored: its idempotency key belongs to another job",
            extra={"job_id": request.id, "other": row["id"]},
        )
        return False
    try:
        if not asks_the_same(row, asked, runtime.sealer):
            logger.warning("message ignored: its job id exists with other arguments", extra={"job_id": request.id})
            return False
    except ConfigurationError as error:  # the row counts, not the message; the run reports this error as well
        logger.warning(
            "arguments of message not compared with those of its job",
            extra={"job_id": request.id, "reason": str(error)},
        )
    return True


def _is_known(runtime: Runtime, job_id: str) -> bool:
    with runtime.database.begin() as session:
        return queries.find_job(session, job_id) is not None or queries.is_pruned(session, job_id)


def _options(request: Any) -> Mapping[str, Any]:
    found = {
        "link": request.callbacks,
        "link_error": request.errbacks,
        "chain": request.chain,
        "chord": request.chord,
        "group_id": request.group,
        "group_index": request.group_index,
    }
    # 0 is a value: the index of the first task of a group.
    return {name: found[name] for name in KEPT_OPTIONS if found[name] not in (None, [])}


def _storable(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options as JSON that every database can store, with times and bytes encoded by kombu."""
    try:
        plain: Mapping[str, Any] = json.loads(dumps(options))  # type: ignore[no-untyped-call]
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        if "\\u0000" in text:
            raise ValueError("a zero byte")
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{', '.join(options)}: cannot be stored as JSON: {type(error).__name__}") from None
    if size > MAX_OPTIONS:
        raise InvalidRequestError(f"{', '.join(options)}: have {size} bytes as JSON; at most {MAX_OPTIONS} may be")
    return plain


def _id_or_none(value: Any) -> str | None:
    """The id of a parent or root task, which is only shown; None if it cannot be stored."""
    try:
        return check_job_id(value)
    except InvalidRequestError:
        return None


def is_publish_seq(value: Any) -> bool:
    """Whether the value can be the number of a message: an integer from 0 to 2**63 - 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63

"""Asking for a read: one message to a worker, and the answer out of the result backend.

The answer is polled for: subscribing, as Celery does it, would cost each asking thread a share in one connection, and
a web app that asks for weeks would have to trust that no subscription is ever forgotten.
"""

import logging
import time
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from celery import Celery, states

from blobferry.contract import Request
from blobferry.errors import BlobferryError, ConfigurationError, UnexpectedError, UnreachableError
from blobferry.messages.job_messages import CLIENT_TIMEOUTS, send_read

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.005  #: seconds between two looks; grows with the time that has been waited
LONGEST_PAUSE: Final = 0.1  #: seconds
LOOKS: Final = 3  #: in a row that may fail; a connection that lay idle may be dead
#: Schemes of result backends that give an answer to one connection only, or to nobody.
_UNFIT: Final = ("rpc", "amqp", "disabled")


class ReadRequester:
    """Asks, and waits for what is answered. Thread-safe; may be made before a fork. Opens no connection by itself."""

    def __init__(self, app: Celery, result_backend: str) -> None:
        self._app = app
        self._results = Celery("blobferry-client-results", backend=result_backend, set_as_current=False)
        self._results.conf.update(
            result_serializer="json",
            accept_content=["json"],
            redis_socket_timeout=CLIENT_TIMEOUTS["socket_timeout"],
            redis_socket_connect_timeout=CLIENT_TIMEOUTS["socket_connect_timeout"],
            redis_socket_keepalive=CLIENT_TIMEOUTS["socket_keepalive"],
        )
        try:
            if "://" not in result_backend or urlsplit(result_backend).scheme in _UNFIT:
                raise ValueError(result_backend)
            self._backend = self._results.backend
        except Exception:  # Celery's own and those of any library behind it; they may show a piece of the password
            raise ConfigurationError(
                "result_backend",
                "needs the URL of a Celery result backend that keeps results, the one that the worker has: "
                "redis://:password@host:6379/0, or rediss://…?ssl_cert_reqs=required",
            ) from None

    def ask(self, request: Request, timeout: float) -> Any:
        """The worker's answer, or the error that it ended in. Raises UnreachableError if none comes in time."""
        ends_at = time.monotonic() + timeout
        task_id = str(uuid4())
        send_read(self._app, request, task_id, timeout)
        pause = FIRST_PAUSE
        while True:
            meta = self._look(task_id)
            if meta["status"] in states.READY_STATES:
                break
            left = ends_at - time.monotonic()
            if left <= 0:
                raise UnreachableError(
                    f"no worker answered within {timeout:g} s: does one run that consumes the queue "
                    f"'blobferry.reads', has it a free slot (`python -m worker run --only reads` keeps some), and has "
                    f"it this result backend?"
                )
            time.sleep(min(pause, left))
            pause = min(pause * 1.3, LONGEST_PAUSE)
        self._forget(task_id)
        return _answer(meta)

    def close(self) -> None:
        """Close the connections. It may be used again afterwards."""
        client = vars(self._backend).get("client")  # once it has been used, if there is such a thing
        pool = getattr(client, "connection_pool", None)  # of Redis
        if pool is not None:
            pool.disconnect()
        self._results.close()

    def _look(self, task_id: str) -> dict[str, Any]:
        for look in range(LOOKS):
            try:
                meta: dict[str, Any] = self._backend.get_task_meta(task_id, cache=False)
                return meta
            except Exception as error:  # whatever the backend's client raises
                if look == LOOKS - 1:
                    raise UnreachableError(f"result backend: {error}") from error
                time.sleep(LONGEST_PAUSE)
        raise AssertionError("the last look returns or raises")

    def _forget(self, task_id: str) -> None:
        try:
            self._backend.forget(task_id)
        except Exception as error:  # it expires by itself
            logger.debug("result not forgotten", extra={"reason": repr(error)})


def _answer(meta: dict[str, Any]) -> Any:
    result = meta["result"]
    if meta["status"] == states.SUCCESS:
        return result
    if isinstance(result, BlobferryError):
        raise result
    if meta["status"] == states.REVOKED:
        raise UnreachableError("the read was revoked, or expired: do the clocks of client and worker differ?")
    raise UnexpectedError(f"the worker failed: {type(result).__name__}: {result}")

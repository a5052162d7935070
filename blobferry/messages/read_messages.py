"""Reads: one message to a worker, whose answer comes from the result backend.

The answer is polled for. Celery's subscriptions share one connection among all threads, and a web app that runs for
weeks would leak one for each that is not cleaned up.
"""

import logging
import time
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from celery import Celery, states

from blobferry.contract import Request
from blobferry.errors import BlobferryError, ConfigurationError, UnexpectedError, UnreachableError
from blobferry.messages.broker_address import BrokerOptions, broker_address
from blobferry.messages.configured_app import ConfiguredApp
from blobferry.messages.job_messages import CLIENT_TIMEOUTS, send_read

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.005  #: seconds before the second poll; later pauses grow
LONGEST_PAUSE: Final = 0.1  #: seconds
TRIES: Final = 3  #: of one poll; the first may meet a connection that died while idle
#: Schemes of result backends that deliver an answer to one connection only, or not at all.
_UNFIT: Final = ("rpc", "amqp", "disabled")


class ReadRequester:
    """Sends reads and waits for their answers. Thread-safe; may be made before a fork; connects on first use."""

    def __init__(self, app: Celery, result_backend: str, options: BrokerOptions | None = None) -> None:
        self._app = app
        results = broker_address(result_backend, options, setting="result_backend")
        self._results = ConfiguredApp("blobferry-client-results", backend=results.url, set_as_current=False)
        self._results.conf.update(
            result_serializer="json",
            accept_content=["json"],
            redis_socket_timeout=CLIENT_TIMEOUTS["socket_timeout"],
            redis_socket_connect_timeout=CLIENT_TIMEOUTS["socket_connect_timeout"],
            redis_socket_keepalive=CLIENT_TIMEOUTS["socket_keepalive"],
            redis_backend_use_ssl=results.tls,
            result_backend_transport_options=dict(results.transport_options),
        )
        try:
            if "://" not in result_backend or urlsplit(result_backend).scheme in _UNFIT:
                raise ValueError(result_backend)
            self._backend = self._results.backend
        except Exception:  # Celery's, or any library's behind it; its text may show part of the password
            raise ConfigurationError(
                "result_backend",
                "needs the URL of the worker's Celery result backend, of a kind that keeps results: "
                "redis://:password@host:6379/0, rediss:// or sentinel://",
            ) from None

    def read(self, request: Request, timeout: float) -> Any:
        """The worker's answer within ``timeout`` seconds. Raises its error, or UnreachableError without an answer."""
        ends_at = time.monotonic() + timeout
        task_id = str(uuid4())
        send_read(self._app, request, task_id, timeout)
        pause = FIRST_PAUSE
        while True:
            meta = self._poll(task_id)
            if meta["status"] in states.READY_STATES:
                break
            left = ends_at - time.monotonic()
            if left <= 0:
                raise UnreachableError(
                    f"no worker answered within {timeout:g} s: check that a worker consumes the queue "
                    "'blobferry.reads', has a free slot (unless its setting `reads` is 0, it keeps some for reads) and "
                    "uses this result backend"
                )
            time.sleep(min(pause, left))
            pause = min(pause * 1.3, LONGEST_PAUSE)
        self._forget(task_id)
        return _answer(meta)

    def close(self) -> None:
        """Close the connections. It may be used again afterwards."""
        client = vars(self._backend).get("client")  # set on first use
        pool = getattr(client, "connection_pool", None)  # only Redis has one
        if pool is not None:
            pool.disconnect()
        self._results.close()

    def _poll(self, task_id: str) -> dict[str, Any]:
        for tries_left in reversed(range(TRIES)):
            try:
                return dict(self._backend.get_task_meta(task_id, cache=False))
            except Exception as error:  # clients of result backends raise many types
                if not tries_left:
                    raise UnreachableError(f"result backend: {error}") from error
                time.sleep(LONGEST_PAUSE)
        raise AssertionError("the last try returns or raises")

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
        raise UnreachableError("the read was revoked, or expired: check that the clocks of client and worker agree")
    raise UnexpectedError(f"the worker failed: {type(result).__name__}: {result}")

"""Broker: what a client sends through Celery's broker, messages for rows that it has written, and reads."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blobferry.contract import FINAL_STATES, JobState, Request
from blobferry.errors import ConfigurationError
from blobferry.messages.broker_address import BrokerOptions

if TYPE_CHECKING:
    from blobferry.messages.publisher import Publisher
    from blobferry.messages.read_messages import ReadRequester

Row = Mapping[str, Any]


class Broker:
    """A client's broker and result backend. Opens no connection by itself; thread-safe; may be made before a fork.

    Without a URL nothing is published; the caretaker publishes the row within seconds.
    """

    _app: Any  #: Celery's; None without a URL
    _publisher: "Publisher | None"
    _requester: "ReadRequester | None"

    def __init__(self, url: str | None, result_backend: str | None, options: BrokerOptions | None = None) -> None:
        self._url, self._options = url, options
        self._app, self._publisher, self._requester = None, None, None
        if not url:
            return
        # Here, because they load Celery, which takes longer than all the rest.
        from blobferry.messages.job_messages import Message, client_app  # noqa: PLC0415
        from blobferry.messages.publisher import Publisher  # noqa: PLC0415
        from blobferry.messages.read_messages import ReadRequester  # noqa: PLC0415

        self._app, self._message, self._read_by = client_app(url, options), Message.from_row, ReadRequester
        self._publisher = Publisher(self._app)
        if result_backend:
            self._requester = ReadRequester(self._app, result_backend, options)

    @property
    def is_ready(self) -> bool:
        """Whether a message would be sent now, as far as is known."""
        return self._publisher is not None and not self._publisher.is_paused

    def publish_rows(self, rows: Sequence[Row]) -> int:
        """Send a message for each row, in one round trip; return for how many of them, from the first on."""
        return 0 if self._publisher is None else self._publisher.publish(*map(self._message, rows))

    def publish_controlled(self, row: Row) -> None:
        """Publish a row that was cancelled, paused, resumed or retried, unless a run will see the request itself."""
        is_paused = row["state"] == JobState.PAUSED
        is_requested = row["cancel_requested"] or (row["pause_requested"] and not is_paused)
        is_due = not is_paused and (row["run_at"] is None or row["run_at"] <= row["seen_at"])
        is_unowned = row["lease_expires_at"] is None and row["state"] not in FINAL_STATES
        if is_unowned and (is_requested or is_due):
            self.publish_rows([row])

    def read(self, request: Request, timeout: float) -> Any:
        """The worker's answer to a read, or the error that it ended in. Raises UnreachableError if none comes."""
        if self._app is None or self._url is None:
            raise ConfigurationError(
                "broker_url", f"is not set; {request.operation} needs a worker and thus the broker"
            )
        if self._requester is None:  # only now: a broker that cannot hold results may still take messages
            self._requester = self._read_by(self._app, self._url, self._options)
        return self._requester.read(request, timeout)

    def close(self) -> None:
        """Close the connections. It may be used again afterwards."""
        for connected in (self._app, self._requester):
            if connected is not None:
                connected.close()

"""The broker of a client under test: it sends nothing, whatever the client was configured with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blobferry.contract import Request
from blobferry.messages.broker import Broker

Read = Callable[[Request], Any]


class SilentBroker(Broker):
    """Publishes nothing, as if no broker were configured. Reads of blobs are answered by ``read_inline``.

    ``has_worker``: whether the kit's own worker has been used.
    """

    def __init__(self, read_inline: Read, has_worker: Callable[[], bool]) -> None:
        super().__init__(None, None)
        self._read_inline = read_inline
        self._has_worker = has_worker

    @property
    def is_silent(self) -> bool:
        """Whether no worker has run yet, so that Django's storages take their stores for empty."""
        return not self._has_worker()

    def publish_rows(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Nothing."""
        return 0

    def read(self, request: Request, timeout: float) -> Any:
        """The answer of the kit's own worker. Raises ConfigurationError where no worker is installed."""
        return self._read_inline(request)

"""The broker of a client under test: it sends nothing, whatever the client was configured with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blobferry.contract import Request
from blobferry.messages.broker import Broker

Read = Callable[[Request], Any]


class SilentBroker(Broker):
    """Publishes nothing, as if no broker were configured. Reads of blobs are answered by ``read_inline``."""

    def __init__(self, read_inline: Read) -> None:
        super().__init__(None, None)
        self._read_inline = read_inline

    def publish_rows(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Nothing."""
        return 0

    def read(self, request: Request, timeout: float) -> Any:
        """The answer of the kit's own worker. Raises ConfigurationError where no worker is installed."""
        return self._read_inline(request)

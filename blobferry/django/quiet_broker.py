"""The broker of a Django project, which is silent while its tests run."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from blobferry.contract import Request
from blobferry.errors import ConfigurationError
from blobferry.messages.broker import Broker
from blobferry.messages.broker_address import BrokerOptions


def is_tested() -> bool:
    """Whether Django's test environment is set up, by its own runner or by pytest-django."""
    # No public name says so. Seen in Django 5.2 to 6.1: setup_test_environment sets it, and nothing else does.
    # A process that runs no tests does not import the module, nor does this.
    return hasattr(getattr(sys.modules.get("django.test.utils"), "_TestState", None), "saved_data")


class QuietBroker(Broker):
    """Sends nothing in tests, as the project's broker is the real one, unless ``in_tests``."""

    def __init__(
        self, url: str | None, result_backend: str | None, options: BrokerOptions | None = None, *, in_tests: bool
    ) -> None:
        super().__init__(url, result_backend, options)
        self._in_tests = in_tests

    @property
    def is_silent(self) -> bool:
        """Whether tests run, so that nothing is sent."""
        return not self._in_tests and is_tested()

    @property
    def is_ready(self) -> bool:
        """Whether a message would be sent now, as far as is known."""
        return not self.is_silent and super().is_ready

    def publish_rows(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Send a message for each row, but in tests; return for how many of them, from the first on."""
        return 0 if self.is_silent else super().publish_rows(rows)

    def read(self, request: Request, timeout: float) -> Any:
        """The worker's answer to a read. Raises ConfigurationError in tests."""
        if self.is_silent:
            problem = (
                f"is off, so a test does not send the read {request.operation!r} to the real workers: replace that call"
                " in the test, or set it and the broker of a test to True and its URL"
            )
            raise ConfigurationError("BLOBFERRY['PUBLISH_IN_TESTS']", problem)
        return super().read(request, timeout)

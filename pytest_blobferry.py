"""The pytest plugin of Blobferry: fixtures for apps that use it; see docs/testing.md.

pytest imports this module at each start, so it imports nothing of Blobferry before a test asks for a fixture.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from blobferry.testing import FerryKit
    from blobferry.testing.real_stack import RealStack


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the worker of ``blobferry_stack`` is, if not beside the app."""
    what = "the command blobferry-worker of another environment, for the fixture blobferry_stack"
    parser.addini("blobferry_worker", what, default="")


@pytest.fixture
def blobferry_client() -> Any:
    """The client whose jobs ``blobferry_kit`` records. Override it to return your app's Client or AsyncClient.

    In a Django project with ``blobferry.django`` it is ``blobferry.django.ferry``. Else it is None: the kit has one.
    """
    if not _uses_django():
        return None
    from blobferry.django import ferry  # noqa: PLC0415 - here, as above

    return ferry


@pytest.fixture
def blobferry_transaction() -> Any:
    """The transaction of the test. Override it to return the Session or Connection that the test rolls back."""
    return None


@pytest.fixture
def blobferry_celery() -> Any:
    """The Celery app whose tasks ``on_done=`` names. Override it, unless it is Celery's current app."""
    return None


@pytest.fixture
def blobferry_kit(
    request: pytest.FixtureRequest, blobferry_client: Any, blobferry_transaction: Any, blobferry_celery: Any
) -> "Iterator[FerryKit]":
    """A kit for this test: what it enqueues is recorded, and nothing is published."""
    from blobferry.testing import recording  # noqa: PLC0415 - here, as above

    if _uses_django() and request.config.pluginmanager.has_plugin("django"):
        request.getfixturevalue("db")  # of pytest-django, which otherwise refuses the database
    with recording(blobferry_client, transaction=blobferry_transaction, celery=blobferry_celery) as kit:
        yield kit


@pytest.fixture(scope="session")
def blobferry_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RealStack]":
    """A broker, a database, a store and a worker, all real, for the session; skipped where a part is not installed."""
    from blobferry.testing.real_stack import MissingPartError, real_stack  # noqa: PLC0415 - here, as above

    command = str(request.config.getini("blobferry_worker"))
    try:
        with real_stack(tmp_path_factory.mktemp("blobferry"), os.environ, command) as stack:
            yield stack
    except MissingPartError as error:
        pytest.skip(f"blobferry_stack: {error}")


def _uses_django() -> bool:
    if getattr(sys.modules.get("django.apps"), "apps", None) is None:
        return False
    from django.apps import apps  # noqa: PLC0415 - it is loaded

    return bool(apps.ready and apps.is_installed("blobferry.django"))

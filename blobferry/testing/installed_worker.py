"""The worker's own code, if blobferry-worker is installed beside the app; it is imported when it is first used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from blobferry.client import Client
from blobferry.testing.joined_transaction import JoinedTransaction

Storages = Mapping[str, Mapping[str, Any]]

MISSING: Final = (
    "{what} runs jobs by the worker's own code: install blobferry-worker into the environment of these tests, from a "
    "checkout or a wheel, or end jobs by hand with kit.finish(…) and kit.fail(…)"
)


class InstalledWorker:
    """Makes the kit's worker at the first call. Raises ImportError that says what to install."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __call__(self) -> Any:
        """The worker: a ``worker.inline_worker.InlineWorker``."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @property
    def is_made(self) -> bool:
        """Whether it was ever called."""
        return self._made is not None

    def close(self) -> None:
        """End its threads, if it was ever made."""
        if self._made is not None:
            self._made.close()
            self._made = None


def inline_worker(client: Client, storages: Storages) -> InstalledWorker:
    """A worker in this process, for jobs of the client's database, or of the transaction that it works in."""

    def make() -> Any:
        try:
            module = import_module("worker.inline_worker")
        except ImportError as error:
            raise ImportError(f"{MISSING.format(what='kit.drain()')} ({error})") from error
        engine: Any = client._engine
        bind = engine.connection if isinstance(engine, JoinedTransaction) else engine
        return module.InlineWorker(bind, storages, client._sealer, spool_dir=client._spool._path)

    return InstalledWorker(make)

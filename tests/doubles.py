"""Doubles that several folders share: real stores, checkpoints and databases that fail, lag, lie or tell.

A death is a BaseException that nothing in the code under test may catch; once a process is dead, nothing that it still
tries has any effect.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session

from models import Database
from worker.errors import KeyNotFoundError, SourceChangedError, StoreError, StoreUnavailableError
from worker.stores.blob_values import BlobHead, Limits
from worker.stores.capabilities import Capabilities
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint
from worker.transfer.probe_keys import DIRECTORY
from worker.transfer.sources.source import Source
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying
from worker.transfer.upload.target import Target

if TYPE_CHECKING:

    class Double(Any):  # type: ignore[misc]
        """Passes for every protocol: how its methods are passed on, mypy does not see."""
else:
    Double = object

Answer = TypeVar("Answer")
When = Literal["before", "after"]
Hook = Callable[[str], object]  #: is told the name of a verb

TINY = Limits(min_part_size=1)  #: parts as small as a test likes
PUBLISHING = frozenset({"put", "copy", "complete_upload"})


class DeathError(BaseException):
    """The process is dead: SIGKILL, as far as a test within one process can show it."""


class BytesReader(BytesIO):
    """The bytes of one get."""

    def __init__(self, data: bytes, etag: str) -> None:
        super().__init__(data)
        self.etag = etag


class Fuse:
    """Blows at the ``fail_at``-th call, before or after that has had its effect; from then on every call is dead."""

    def __init__(self, fail_at: int = 0, when: When = "before") -> None:
        self.calls: list[str] = []
        self.blown = False
        self._fail_at = fail_at
        self._when = when
        self._lock = threading.Lock()

    def call(self, name: str, work: Callable[[], Answer]) -> Answer:
        """Do the work, unless the process has died."""
        with self.around(name):
            return work()

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        """The same for the body of a with statement."""
        with self._lock:
            self._check()
            self.calls.append(name)
            mine = len(self.calls) == self._fail_at
            self.blown = mine and self._when == "before"
            self._check()
        try:
            yield
        finally:  # an error that is the answer goes down with the process as well
            with self._lock:
                self.blown = self.blown or mine
                self._check()

    def _check(self) -> None:
        if self.blown:
            raise DeathError(self.calls[-1])


# --- stores --------------------------------------------------------------------------------------------------------


class WrappedStore(Double):
    """A store that passes everything on; what a double changes goes through ``_do``."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name, self.bucket, self.endpoint = store.name, store.bucket, store.endpoint
        self.limits, self.checksum, self.capabilities = store.limits, store.checksum, store.capabilities

    @property
    def identity(self) -> str:
        """The store's own, or that of a storage configured with the bucket or endpoint that a test has put here."""
        is_renamed = (self.bucket, self.endpoint) != (self.store.bucket, self.store.endpoint)
        return f"{self.endpoint}/{self.bucket}" if is_renamed else self.store.identity

    def warm_up(self) -> None:
        self.store.warm_up()

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return getattr(self.store, name)(*args, **keywords)


def _verb(name: str) -> Callable[..., Any]:
    return lambda store, *args, **keywords: store._do(name, args, keywords)


# Methods of the class and no __getattr__, which the super() of a double that overrides a verb would not reach.
for _name in vars(Store):
    if not _name.startswith("_") and not hasattr(WrappedStore, _name):
        setattr(WrappedStore, _name, _verb(_name))


class FaultyStore(WrappedStore):
    """Raises ``error`` at ``times`` calls of the verbs from the ``fail_at``-th on, before or after their effect."""

    def __init__(
        self,
        store: Store,
        *verbs: str,
        fail_at: int = 1,
        times: int = 1,
        when: When = "before",
        error: Callable[[], BaseException] = lambda: StoreUnavailableError("injected"),
    ) -> None:
        super().__init__(store)
        self.fired = 0
        self._verbs = frozenset(verbs)
        self._failing = range(fail_at, fail_at + times)
        self._when = when
        self._error = error
        self._calls = 0
        self._lock = threading.Lock()

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        with self._lock:
            self._calls += name in self._verbs
            fails = name in self._verbs and self._calls in self._failing
            self.fired += fails
        if fails and self._when == "before":
            raise self._error()
        answer = super()._do(name, args, keywords)
        if fails:
            raise self._error()
        return answer


class UnconditionalStore(WrappedStore):
    """Refuses every condition of these verbs, by default of all, also one that holds. Nobody knows that yet."""

    def __init__(self, store: Store, refusal: type[StoreError], *verbs: str) -> None:
        super().__init__(store)
        self.capabilities = Capabilities()
        self._refusal = refusal
        self._verbs = frozenset(verbs)

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        is_conditional = keywords.get("condition") or (keywords.get("if_match") and name == "delete_batch")
        if is_conditional and (not self._verbs or name in self._verbs):
            raise self._refusal("odd")
        return super()._do(name, args, keywords)


class HookedStore(WrappedStore):
    """Calls ``before`` and ``after`` with the name of each verb: somebody else does something at that very moment.

    Not at a probe's: whether there is one depends on what the store was asked before.
    """

    def __init__(self, store: Store, *, before: Hook = lambda verb: None, after: Hook = lambda verb: None) -> None:
        super().__init__(store)
        self._before = before
        self._after = after

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if args and DIRECTORY in str(args[0]):
            return super()._do(name, args, keywords)
        self._before(name)
        answer = super()._do(name, args, keywords)
        self._after(name)
        return answer


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a store."""

    verb: str
    args: tuple[Any, ...]
    keywords: Mapping[str, Any]
    data: bytes | None = None  #: what a put or a part carried


class RecordingStore(WrappedStore):
    """Remembers every call, with the bytes that went out."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.calls: list[Call] = []

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        body = {"put": 1, "upload_part": 3}.get(name)
        data = None
        if body is not None:
            data = read_all(args[body])
            args = (*args[:body], data, *args[body + 1 :])
        self.calls.append(Call(name, args, keywords, data))
        return super()._do(name, args, keywords)

    def named(self, *verbs: str) -> list[Call]:
        """The calls of these verbs."""
        return [call for call in self.calls if call.verb in verbs]

    def sent(self) -> list[tuple[int, bytes]]:
        """The parts that went out, but not a probe's: number and bytes, by number."""
        parts = (call for call in self.named("upload_part") if ".probe" not in call.args[0])
        return sorted((call.args[2], call.data or b"") for call in parts)


class MortalStore(WrappedStore):
    """Every call may be the last of this process; whatever comes of it, a reader ``looks`` afterwards."""

    def __init__(self, store: Store, fuse: Fuse, looks: Hook = lambda verb: None) -> None:
        super().__init__(store)
        self._fuse = fuse
        self._looks = looks

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        with self._fuse.around(name):
            try:
                return super()._do(name, args, keywords)
            finally:
                self._looks(name)


class RuledStore(WrappedStore):
    """A bucket whose rules abort unfinished uploads after so long, or that says nothing about it."""

    def __init__(self, store: Store, answer: timedelta | Exception | None) -> None:
        super().__init__(store)
        self._answer = answer

    def upload_lifetime(self, key: str) -> timedelta | None:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class FusedStore(MortalStore):
    """One that keeps what a reader saw at ``key`` that is not ``allowed`` at any moment, and after which verb."""

    def __init__(self, store: Store, fuse: Fuse, *, key: str, allowed: set[bytes | None]) -> None:
        def look(verb: str) -> None:
            if (seen := blob(store, key)) not in allowed:
                self.torn.append((verb, seen))

        super().__init__(store, fuse, look)
        self.torn: list[tuple[str, bytes | None]] = []


class LaggingStore(WrappedStore):
    """After each commit call, ``head`` goes on showing what was there before, for so many looks."""

    def __init__(self, store: Store, looks: int) -> None:
        super().__init__(store)
        self.looks_left = 0
        self._looks = looks
        self._old: BlobHead | None = None

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name in PUBLISHING:
            self._old, self.looks_left = None, self._looks
            with suppress(KeyNotFoundError):
                self._old = self.store.head(args[0])
        if name == "head" and self.looks_left > 0:
            self.looks_left -= 1
            if self._old is None:
                raise KeyNotFoundError(f"not yet: {args[0]}")
            return self._old
        return super()._do(name, args, keywords)


class LyingStore(WrappedStore):
    """Shows every blob one byte too small, for ever."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        answer = super()._do(name, args, keywords)
        return replace(answer, size=answer.size - 1) if name == "head" else answer


def known(value: Answer | None) -> Answer:
    """A field that this store always shows."""
    assert value is not None
    return value


def tiny_store(**settings: Any) -> MemoryStore:
    """A memory store that takes parts of any size."""
    return MemoryStore(**{"limits": TINY, **settings})


def read_all(body: Any) -> bytes:
    """The bytes of a body, which is rewound."""
    if isinstance(body, bytes):
        return body
    body.seek(0)
    data = b"".join(bytes(piece) for piece in iter(lambda: body.read(), b""))
    body.seek(0)
    return data


def write(
    engine: Engine,
    store: Store,
    key: str,
    source: Source,
    *,
    checkpoint: Checkpoint,
    head: CopiedPrefix | None = None,
    copying: Copying | None = None,
    **target: Any,
) -> None:
    """One call of the engine."""
    engine.write(Target(store=store, key=key, checkpoint=checkpoint, **target), source, prefix=head, copying=copying)


def blob(store: Store, key: str) -> bytes | None:
    """What a reader gets; None for nothing."""
    with suppress(KeyNotFoundError), store.get(key) as reader:
        return reader.read()
    return None


def unfinished(store: Store) -> list[str]:
    """The ids of all uploads that the store has not seen end."""
    return [entry.upload_id for entry in store.list_uploads()]


# --- checkpoints, databases, sources -------------------------------------------------------------------------------


class FusedCheckpoint(Double):
    """Every call may be the last of this process."""

    def __init__(self, checkpoint: Checkpoint, fuse: Fuse) -> None:
        self.mark = checkpoint.mark
        self._checkpoint = checkpoint
        self._fuse = fuse

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._checkpoint, name)
        return lambda *args, **keywords: self._fuse.call(name, lambda: call(*args, **keywords))


def do_not_wait_for_the_disk(connection: Any, record: Any) -> None:
    """For SQLite: a test dies as a process, not as a machine."""
    connection.execute("PRAGMA synchronous = OFF")
    connection.sync = lambda path: None


class FusedDatabase(Database):
    """Every transaction may be the last of this process: before it begins, or right after its commit."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url)
        event.listen(self.engine, "connect", do_not_wait_for_the_disk)
        self._fuse = fuse

    @contextmanager
    def begin(self) -> Iterator[Session]:
        with self._fuse.around("transaction"), super().begin() as session:
            yield session


class BytesSource:
    """A source in memory. ``replace`` is what an impatient user does to a file that is being sent."""

    url = "memory:source"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.fingerprint: Mapping[str, Any] = {"size": len(data), "version": 1}
        self.version = 1

    def replace(self, data: bytes) -> None:
        self.data = data
        self.version += 1

    def again(self) -> "BytesSource":
        """The source as another run opens it."""
        source = BytesSource(self.data)
        source.version = self.version
        source.fingerprint = {"size": len(self.data), "version": self.version}
        return source

    def readinto(self, offset: int, buffer: memoryview) -> None:
        piece = self.data[offset : offset + len(buffer)]
        if len(piece) < len(buffer):
            raise SourceChangedError(f"ends at byte {offset + len(piece)}")
        buffer[:] = piece

    def check(self) -> None:
        if self.version != self.fingerprint["version"]:
            raise SourceChangedError(f"is version {self.version} now")

    def close(self) -> None:
        pass

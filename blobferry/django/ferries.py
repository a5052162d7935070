"""Ferry: a Client whose rows are part of Django's transactions; and ``ferry``, the one of the project's settings."""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from asgiref.sync import sync_to_async
from django.core.signals import setting_changed
from django.db import connections, transaction
from django.dispatch import receiver
from django.utils.functional import SimpleLazyObject, empty

from blobferry.client import Client
from blobferry.django.configuration import SETTING, FerrySettings
from blobferry.django.joined_engine import joined_engine
from blobferry.django.quiet_broker import QuietBroker
from blobferry.errors import InvalidRequestError
from blobferry.jobs import control
from blobferry.jobs.announcement import Announcement, Row
from blobferry.jobs.job_ids import JobId
from blobferry.messages.broker_address import BrokerOptions
from blobferry.values import Job

P = ParamSpec("P")
Answer = TypeVar("Answer")
Method = Callable[Concatenate[Any, P], Answer]
AsyncMethod = Callable[Concatenate[Any, P], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True)
class AfterCommit(Announcement):
    """Announces jobs once the open transaction of Django's has committed; never if it rolls back."""

    alias: str

    def __post_init__(self) -> None:
        # One INSERT needs no block: it belongs to the one that is open, or is a transaction by itself.
        object.__setattr__(self, "alone", self.engine.execution_options(isolation_level="AUTOCOMMIT"))

    def announce(self, rows: list[Row]) -> None:  # type: ignore[override]
        """Publish the jobs after the commit, at once where no block is open. Never raises."""
        if rows:
            transaction.on_commit(partial(super().announce, rows), using=self.alias, robust=True)


def in_thread(method: Method[P, Answer], *, uses_database: bool = True) -> AsyncMethod[P, Answer]:
    """The method for async views: it runs in the thread that has Django's connections, or in any other."""

    name = method.__name__

    @wraps(method)
    async def call(self: Any, *args: P.args, **options: P.kwargs) -> Answer:
        answer: Answer = await sync_to_async(getattr(self, name), thread_sensitive=uses_database)(*args, **options)
        return answer

    return cast(AsyncMethod[P, Answer], call)


class Ferry(Client):
    """A Client on a database of DATABASES. What is committed there is published then.

    Everything that concerns jobs goes through Django's connection of this thread: submitting, reading and watching
    them, cancel, pause, resume and retry. So it is part of the ``atomic`` block that is open, and of a test's
    transaction. An error that these methods raise leaves the block usable. A control request locks the job's row until
    the block ends. Reads of blobs (``stat``, ``list``, ``get_content``) ask a worker through the broker; so does
    ``url_for``, unless ``BLOBFERRY["STORAGES"]`` has the parameters of the storage: then this process signs.

    In tests nothing is published, and reads of blobs are refused, unless ``BLOBFERRY["PUBLISH_IN_TESTS"]`` is true.
    The methods whose names begin with ``a`` are those of the same names, for async views.

    Args:
        database: an alias of DATABASES; that of the setting BLOBFERRY unless given.
    """

    def __init__(self, database: str | None = None) -> None:
        given = FerrySettings.of_project()
        self.alias = database or given.database
        self._others: dict[str, Ferry] = {}
        super().__init__(
            engine=joined_engine(self.alias),
            encryption_keys=given.encryption_keys,
            keys=given.paths,
            spool_dir=Path(given.spool_dir) if given.spool_dir else None,
            storages=given.storages,
        )
        options = BrokerOptions(**given.broker_options)
        self._broker: QuietBroker = QuietBroker(
            given.broker_url or None, given.result_backend or None, options, in_tests=given.publish_in_tests
        )
        self._announcement = AfterCommit(self._engine, self._broker, self.alias)

    def using(self, database: str) -> "Ferry":
        """The same for another database of DATABASES, whose own worker runs its jobs."""
        if database not in self._others:
            self._others[database] = type(self)(database)
        return self._others[database]

    @property
    def is_quiet(self) -> bool:
        """Whether tests run, so that no worker is asked for anything."""
        return self._broker.is_silent

    @property
    def takes_any_keys(self) -> bool:
        """Whether paths may hold more than ASCII letters and digits."""
        return self._keys == "any"

    def close(self) -> None:
        """Close the connections to the broker, also of those for other databases. Django closes its own."""
        super().close()
        for other in self._others.values():
            other.close()

    def _submit(self, operation: str, arguments: dict[str, Any]) -> Job:
        if arguments.get("session") is not None:
            problem = "is for SQLAlchemy; this client joins the transaction of Django that is open on the database "
            raise InvalidRequestError(f"session: {problem}{self.alias!r}, another one by ferry.using(alias)")
        return super()._submit(operation, arguments)

    def _control(self, change: control.Change, job_id: JobId) -> Job:
        row = change(self._engine, job_id)
        publish = partial(self._broker.publish_controlled, row)
        transaction.on_commit(publish, using=self.alias, robust=True)
        return Job.from_row(row)

    def watch(self, job_id: Any, timeout: float | None = None, **options: Any) -> Iterator[Job]:
        """The job now, then after each change until it is final. Raises as ``wait`` does, and InvalidRequestError
        inside of an ``atomic`` block: a job that was submitted there begins after it, and the block stays open.
        """
        for job in super().watch(job_id, timeout, **options):
            yield job
            if not job.is_final and connections[self.alias].in_atomic_block:
                problem = f"job {job_id} is {job.state}, and an atomic() block is open on {self.alias!r}"
                raise InvalidRequestError(f"{problem}, during which no job of it begins: wait after the block")

    aspool = in_thread(Client.spool, uses_database=False)
    aput_content = in_thread(Client.put_content)
    awrite_stream = in_thread(Client.write_stream)
    aread_stream = in_thread(Client.read_stream)
    amove = in_thread(Client.move)
    adelete = in_thread(Client.delete)
    asubmit_many = in_thread(Client.submit_many)
    acancel = in_thread(Client.cancel)
    apause = in_thread(Client.pause)
    aresume = in_thread(Client.resume)
    aretry = in_thread(Client.retry)
    aget = in_thread(Client.get)
    aget_many = in_thread(Client.get_many)
    afinished = in_thread(Client.finished)
    ajobs = in_thread(Client.jobs)
    auploads = in_thread(Client.uploads)
    aattempts = in_thread(Client.attempts)
    asituation = in_thread(Client.situation)
    adeliveries = in_thread(Client.deliveries)
    aredeliver = in_thread(Client.redeliver)
    aget_content = in_thread(Client.get_content, uses_database=False)
    astat = in_thread(Client.stat, uses_database=False)
    alist = in_thread(Client.list, uses_database=False)
    aurl_for = in_thread(Client.url_for, uses_database=False)
    aurls_for = in_thread(Client.urls_for, uses_database=False)


#: The project's client. Made at its first use, and again after ``override_settings``.
ferry = cast(Ferry, SimpleLazyObject(Ferry))


@receiver(setting_changed)
def _forget_settings(*, setting: str, **changed: Any) -> None:
    if setting in (SETTING, "DATABASES"):
        cast(Any, ferry)._wrapped = empty

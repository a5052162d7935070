"""What goes over the wire: who is asked before each attempt, and what no layer below the lease sends twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.stores.scripted_server import Answer, ScriptedServer, refusal
from worker.errors import LeaseLostError, StoreError, StoreUnavailableError
from worker.stores.attempts import asked_before_attempts
from worker.stores.blob_values import BlobOptions, PartReceipt
from worker.stores.capabilities import Capability
from worker.stores.s3.s3_store import S3Store
from worker.transfer.checkpoint import SentPart
from worker.transfer.parts import run_all
from worker.transfer.plan import PartRange
from worker.transfer.stop import never

PART = PartReceipt(1, 5, '"e1"')
COMMITS: dict[str, Callable[[S3Store], Any]] = {
    "put": lambda store: store.put("k", b"bytes"),
    "copy": lambda store: store.copy("s", "k", options=BlobOptions()),
    "complete_upload": lambda store: store.complete_upload("k", "u", [PART]),
    "delete": lambda store: store.delete_batch(["k"], if_match='"e"'),
    "delete_batch": lambda store: store.delete_batch(["k", "l"]),
    "create_upload": lambda store: store.create_upload("k"),
}
READS: dict[str, Callable[[S3Store], Any]] = {
    "head": lambda store: store.head("k"),
    "list": lambda store: store.list_page(""),
    "upload_part": lambda store: store.upload_part("k", "u", 1, b"bytes"),
    "abort_upload": lambda store: store.abort_upload("k", "u"),
}
FAILURES = {
    "500": refusal(500, "InternalError"),
    "503": refusal(503, "SlowDown"),
    "no answer": Answer(hang_up=True),
    "408": refusal(408, "RequestTimeout"),
}
_MOVED = b"<Error><Code>PermanentRedirect</Code><Bucket>bucket</Bucket></Error>"
REDIRECTS = {
    "301": Answer(301, _MOVED, {"x-amz-bucket-region": "eu-west-1"}),
    "307": Answer(307, _MOVED.replace(b"Permanent", b"Temporary"), {"x-amz-bucket-region": "eu-west-1"}),
    "400": Answer(
        400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>", {}
    ),
}  # fmt: skip


@pytest.fixture
def store(server: ScriptedServer) -> S3Store:
    """One whose library may send each request three times."""
    return server.store(max_attempts=3, checksum="none")


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """The verbs of all attempts, in their order."""
    verbs: list[str] = []
    with asked_before_attempts(verbs.append):
        yield verbs


@pytest.mark.parametrize("answer", (FAILURES | REDIRECTS).values(), ids=FAILURES | REDIRECTS)
@pytest.mark.parametrize("verb", COMMITS)
def test_what_commits_or_deletes_is_sent_once(
    server: ScriptedServer, store: S3Store, asked: list[str], verb: str, answer: Answer
) -> None:
    server.script(answer)
    with pytest.raises(StoreError) as caught:
        COMMITS[verb](store)
    assert caught.value.transient
    assert (len(server.requests), asked) == (1, [verb])


@pytest.mark.parametrize("verb", READS)
def test_what_changes_nothing_that_readers_see_is_repeated_and_asked_for_each_time(
    server: ScriptedServer, store: S3Store, asked: list[str], verb: str
) -> None:
    server.script(FAILURES["500"])
    with pytest.raises(StoreUnavailableError):
        READS[verb](store)
    assert (len(server.requests), asked) == (3, [verb] * 3)


@pytest.mark.parametrize("redirect", REDIRECTS.values(), ids=REDIRECTS)
@pytest.mark.parametrize("verb", COMMITS)
def test_the_call_after_a_redirect_goes_to_the_right_region_at_once(
    server: ScriptedServer, store: S3Store, verb: str, redirect: Answer
) -> None:
    """A look comes before it, so the redirect is not followed within the call."""
    server.script(redirect)
    with pytest.raises(StoreUnavailableError, match="region"):
        COMMITS[verb](store)
    with pytest.raises(StoreError):
        COMMITS[verb](store)
    assert "eu-west-1" in server.requests[1].headers["authorization"]


def test_a_run_without_a_lease_sends_nothing_more_not_even_a_repetition_of_the_library(
    server: ScriptedServer, store: S3Store
) -> None:
    left = ["head"]

    def ask(verb: str) -> None:
        if not left:
            raise LeaseLostError("another run owns the job now")
        left.remove(verb)

    server.script(FAILURES["no answer"])
    with asked_before_attempts(ask), pytest.raises(LeaseLostError):
        store.head("k")
    assert len(server.requests) == 1


def test_the_threads_of_a_pool_ask_whom_their_run_asks(
    server: ScriptedServer, store: S3Store, asked: list[str]
) -> None:
    server.script(Answer(headers={"ETag": '"e"'}))

    def prepare(part: PartRange) -> Callable[[], SentPart]:
        def send() -> SentPart:
            receipt = store.upload_part("k", "u", part.number, b"bytes")
            return SentPart(part.number, part.offset, part.size, receipt.etag)

        return send

    parts = [PartRange(number, 5 * (number - 1), 5) for number in (1, 2, 3)]
    with ThreadPoolExecutor(2) as executor:
        run_all(executor, 2, parts, prepare, lambda sent: None, never)
    assert asked == ["upload_part"] * 3


def test_keys_that_are_deleted_one_by_one_are_asked_for_each(server: ScriptedServer, asked: list[str]) -> None:
    store = server.store(missing=[Capability.BATCH_DELETE])
    server.script(Answer(204))
    assert store.delete_batch(["a", "b", "c"]) == []
    assert asked == ["delete"] * 3


def test_nobody_is_asked_outside_of_a_run(server: ScriptedServer, store: S3Store) -> None:
    server.script(Answer(204))
    with asked_before_attempts(None):
        store.abort_upload("k", "u")
    assert len(server.requests) == 1

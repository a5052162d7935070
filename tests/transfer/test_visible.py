"""Whose blob is it? The mark decides; equal bytes only where no mark could be sent, and never after a refusal."""

from dataclasses import replace
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME, MAX_BLOB_METADATA
from tests.doubles import WrappedStore, tiny_store
from worker.stores.blob_values import BlobHead, BlobOptions
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.visible import Expected, look

DATA = b"the same bytes"


class ForgetfulStore(WrappedStore):
    """Drops the metadata of everything. Nobody knows that yet."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.capabilities = Capabilities()

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name in ("put", "copy", "create_upload"):
            keywords = {**keywords, "options": None}
        return super()._do(name, args, keywords)


def visible(memory: MemoryStore, metadata: dict[str, str]) -> BlobHead:
    memory.put("key", DATA, options=BlobOptions(metadata=metadata))
    head = look(memory, "key")
    assert head is not None
    return head


def expected(head: BlobHead, mark: str = "ours") -> Expected:
    """Our blob, with these bytes."""
    return Expected(len(DATA), mark, head.checksum, frozenset({head.etag.strip('"')}))


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


@pytest.mark.parametrize("by_bytes", [True, False])
def test_our_mark_proves_it_also_after_a_refusal(memory: MemoryStore, by_bytes: bool) -> None:
    head = visible(memory, {MARK_NAME: "ours"})
    assert expected(head).difference(memory, head, by_bytes=by_bytes) is None


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, "without this job's mark"),
        ({"owner": "mallory"}, "without this job's mark"),
        ({MARK_NAME: "theirs"}, "another job"),
    ],
    ids=["no metadata", "somebody's", "another job's"],
)
def test_equal_bytes_of_somebody_else_are_not_ours(memory: MemoryStore, metadata: dict[str, str], says: str) -> None:
    head = visible(memory, metadata)
    assert says in (expected(head).difference(memory, head) or "")


def test_equal_bytes_prove_it_where_the_store_drops_metadata(memory: MemoryStore) -> None:
    store = ForgetfulStore(memory)
    head = visible(memory, {})
    assert expected(head).difference(store, head) is None
    assert store.capabilities.missing == {Capability.METADATA}
    assert "same size" in (expected(head).difference(store, head, by_bytes=False) or "")


@pytest.mark.parametrize("proof", ["checksum", "etag"])
@pytest.mark.parametrize("by_bytes", [True, False], ids=["ambiguous", "refused"])
def test_where_no_mark_was_sent_the_bytes_prove_it_unless_the_store_refused(
    memory: MemoryStore, proof: str, by_bytes: bool
) -> None:
    head = visible(memory, {})
    ours = expected(head, mark="")
    ours = replace(ours, etags=frozenset()) if proof == "checksum" else replace(ours, checksum=None)
    assert (ours.difference(memory, head, by_bytes=by_bytes) is None) == by_bytes


def test_where_no_mark_has_room_the_bytes_prove_it(memory: MemoryStore) -> None:
    head = visible(memory, {"large": "x" * (MAX_BLOB_METADATA - len("large"))})
    assert expected(head).difference(memory, head) is None


def test_the_etag_of_the_answer_proves_it_where_no_mark_was_sent(memory: MemoryStore) -> None:
    head = visible(memory, {})
    ours = Expected(len(DATA), "", answered=head.etag)
    assert ours.difference(memory, head, by_bytes=False) is None


def test_what_cannot_be_our_blob(memory: MemoryStore) -> None:
    head = visible(memory, {MARK_NAME: "ours"})
    ours = expected(head)
    assert ours.difference(memory, None) == "nothing is there"
    assert "bytes are there" in (replace(ours, size=1).difference(memory, head) or "")
    assert "its checksum is" in (replace(ours, checksum="CRC64NVME:AAAAAAAAAAA=").difference(memory, head) or "")
    unknown = Expected(len(DATA), "", "MD5:AAAA")
    assert "same size" in (unknown.difference(memory, replace(head, metadata={})) or "")

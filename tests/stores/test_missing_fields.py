"""Answers that lack fields which S3 documents: what can be done without them is done, the rest is a typed error."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.doubles import WrappedStore, blob, tiny_store
from tests.stores.scripted_server import Answer, ScriptedServer
from worker.driver.delete_tree import MemoryDeletion, delete_tree
from worker.errors import NotSupportedError, StoreUnavailableError
from worker.stores.blob_values import Condition, KeyEntry, PartReceipt, UploadEntry
from worker.stores.s3.request_params import blob_head
from worker.stores.s3.s3_uploads import UNKNOWN_SIZE
from worker.transfer.stop import never

HEAD = {"ETag": '"e"', "Last-Modified": "Mon, 23 Nov 2026 00:00:00 GMT", "Content-Length": "5"}


def answer(xml: str) -> Answer:
    return Answer(200, xml.encode())


@pytest.mark.parametrize("missing", ["ETag", "Last-Modified"])
def test_a_head_may_lack_a_field(server: ScriptedServer, missing: str) -> None:
    server.script(Answer(200, b"12345", {name: value for name, value in HEAD.items() if name != missing}))
    head = server.store().head("k")
    assert head.size == 5
    assert (head.mod_time is None) == (missing == "Last-Modified")
    assert (head.etag == '"e"') == (missing != "ETag")


def test_a_blob_without_an_etag_is_not_an_absent_one_and_has_versions(server: ScriptedServer) -> None:
    store = server.store()
    versions = []
    for second in ("00", "01"):
        changed = {"Last-Modified": f"Mon, 23 Nov 2026 00:00:{second} GMT", "Content-Length": "5"}
        server.script(Answer(200, b"12345", changed))
        versions.append(store.head("k").etag)
    assert len({*versions, ""}) == 3


def test_a_version_without_an_etag_is_never_sent_as_a_condition(server: ScriptedServer) -> None:
    store = server.store(checksum="none")
    server.script(Answer(200, b"12345", {"Content-Length": "5"}))
    etag = store.head("k").etag
    tagged = {"ETag": '"e"'}
    server.script(Answer(200, b"", tagged), Answer(204), Answer(200, b"12345", tagged))
    store.put("k", b"new", condition=Condition(if_match=etag))
    store.delete_batch(["k"], if_match=etag)
    with store.get("k", if_match=etag) as reader:
        reader.read()
    assert not any("if-match" in request.headers for request in server.requests)


def test_a_listing_may_lack_everything_but_keys(server: ScriptedServer) -> None:
    server.script(
        answer(
            "<ListBucketResult><Contents><Key>k</Key></Contents><Contents></Contents>"
            "<CommonPrefixes></CommonPrefixes></ListBucketResult>"
        )
    )
    page = server.store().list_page("")
    assert (page.entries, page.prefixes) == ([KeyEntry("k", None, None, "")], [])


def test_listed_parts_may_lack_size_and_etag(server: ScriptedServer) -> None:
    """Such a part agrees with no row, so it is sent again."""
    server.script(answer("<ListPartsResult><Part><PartNumber>1</PartNumber></Part><Part></Part></ListPartsResult>"))
    assert list(server.store().list_parts("k", "u")) == [PartReceipt(1, UNKNOWN_SIZE, "")]


def test_listed_uploads_may_lack_their_time(server: ScriptedServer) -> None:
    upload = "<Upload><Key>k</Key><UploadId>u</UploadId></Upload><Upload></Upload>"
    server.script(answer(f"<ListMultipartUploadsResult>{upload}</ListMultipartUploadsResult>"))
    assert list(server.store().list_uploads()) == [UploadEntry("k", "u", None)]


@pytest.mark.parametrize(
    "body", [b"", b"<html>welcome</html>", b"<InitiateMultipartUploadResult></InitiateMultipartUploadResult>"]
)
def test_an_upload_without_an_id_is_not_opened(server: ScriptedServer, body: bytes) -> None:
    server.script(Answer(200, body))
    with pytest.raises(StoreUnavailableError):
        server.store().create_upload("k")


def test_a_head_without_a_size_is_an_error_that_names_it() -> None:
    with pytest.raises(NotSupportedError, match="Content-Length"):
        blob_head("k", {"ETag": '"e"'})


class TimelessStore(WrappedStore):
    """Shows no times: in listings, or nowhere."""

    def __init__(self, *verbs: str) -> None:
        super().__init__(tiny_store())
        self._verbs = verbs

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        found = super()._do(name, args, keywords)
        if name not in self._verbs:
            return found
        if name == "head":
            return replace(found, mod_time=None)
        return replace(found, entries=[replace(entry, mod_time=None) for entry in found.entries])


def test_a_tree_in_a_listing_without_times_is_deleted_by_the_times_of_its_blobs() -> None:
    store = TimelessStore("list_page")
    store.put("d/a", b"old")
    deletion = MemoryDeletion()
    deletion.cutoff = datetime.now(UTC)
    store.put("d/b", b"new")
    delete_tree(store, "d", "/d", deletion=deletion, stop=never)
    assert (blob(store, "d/a"), blob(store, "d/b")) == (None, b"new")


def test_a_tree_without_any_times_is_deleted_by_a_plain_call_and_refused_to_a_job() -> None:
    store = TimelessStore("list_page", "head")
    store.put("d/a", b"old")
    deletion = MemoryDeletion()
    deletion.cutoff = datetime.now(UTC)
    with pytest.raises(NotSupportedError, match="Last-Modified"):
        delete_tree(store, "d", "/d", deletion=deletion, stop=never)
    assert blob(store, "d/a") == b"old"
    delete_tree(store, "d", "/d", deletion=MemoryDeletion(), stop=never)
    assert blob(store, "d/a") is None

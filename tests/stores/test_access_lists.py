"""ACLs: what of one is sent with a copy, and what happens where it cannot be read or set."""

import logging
from typing import Any

import pytest

from tests.stores.scripted_server import Answer, ScriptedServer, refusal
from worker.errors import InvalidStoreRequestError, PermissionDeniedError, StoreUnavailableError
from worker.stores.blob_values import BlobOptions
from worker.stores.capabilities import Capability
from worker.stores.s3.access_lists import granted

ALL = "http://acs.amazonaws.com/groups/global/AllUsers"
KNOWN = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
HEAD = {"ETag": '"e"', "Content-Length": "1", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
PUBLIC = (
    "<AccessControlPolicy><Owner><ID>me</ID></Owner><AccessControlList>"
    "<Grant><Grantee><ID>me</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant>"
    f"<Grant><Grantee><URI>{ALL}</URI></Grantee><Permission>READ</Permission></Grant>"
    "</AccessControlList></AccessControlPolicy>"
).encode()
SENT = BlobOptions(acl={"x-amz-acl": "public-read"})


def of(*grants: tuple[str, str, str], owner: str = "me") -> dict[str, Any]:
    return {
        "Owner": {"ID": owner},
        "Grants": [{"Grantee": {field: name}, "Permission": permission} for field, name, permission in grants],
    }


MINE = ("ID", "me", "FULL_CONTROL")
ACLS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "private": (of(MINE), {}),
    "none": ({}, {}),
    "an owner without a name": ({"Owner": {}, "Grants": [{"Grantee": {}, "Permission": "FULL_CONTROL"}]}, {}),
    "an owner with an empty name": (of(("ID", "", "FULL_CONTROL"), owner=""), {}),
    "empty elements": ({"Owner": None, "Grants": [{"Grantee": None}, {}]}, {}),
    "public": (of(MINE, ("URI", ALL, "READ")), {"x-amz-acl": "public-read"}),
    "public, in another order": (of(("URI", ALL, "READ"), MINE), {"x-amz-acl": "public-read"}),
    "public, also to write": (
        of(MINE, ("URI", ALL, "READ"), ("URI", ALL, "WRITE")),
        {"x-amz-acl": "public-read-write"},
    ),
    "authenticated": (of(MINE, ("URI", KNOWN, "READ")), {"x-amz-acl": "authenticated-read"}),
    "single accounts": (
        of(MINE, ("ID", "you", "READ"), ("EmailAddress", "a@b", "READ"), ("ID", "you", "WRITE_ACP")),
        {
            "x-amz-grant-full-control": 'id="me"',
            "x-amz-grant-read": 'id="you", emailAddress="a@b"',
            "x-amz-grant-write-acp": 'id="you"',
        },
    ),
    "the owner may only read": (of(("ID", "me", "READ")), {"x-amz-grant-read": 'id="me"'}),
    "public, without its owner": (of(("URI", ALL, "READ")), {"x-amz-grant-read": f'uri="{ALL}"'}),
}


@pytest.mark.parametrize("name", ACLS)
def test_an_acl_becomes_the_headers_that_make_it(name: str) -> None:
    answer, headers = ACLS[name]
    assert granted(answer) == headers


def test_a_copy_sends_the_acl_and_all_else_that_a_store_does_not_copy(server: ScriptedServer) -> None:
    carried = {
        "x-amz-website-redirect-location": "/new",
        "x-amz-storage-class": "GLACIER_IR",
        "x-amz-server-side-encryption": "aws:kms:dsse",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
    }
    server.script(Answer(headers=HEAD | carried), Answer(body=PUBLIC), Answer(body=b"<CopyObjectResult/>"))
    server.store(encrypt=False).copy("a", "b")
    sent = server.requests[-1].headers
    assert {name: sent.get(name) for name in carried} == carried
    assert sent["x-amz-acl"] == "public-read"


def test_where_acls_are_not_to_be_kept_none_is_read(server: ScriptedServer) -> None:
    server.script(Answer(headers=HEAD), Answer(body=b"<Tagging><TagSet/></Tagging>"))
    assert server.store(acl="default").options_of("a").acl == {}
    assert len(server.requests) == 2


def test_a_store_without_acls_is_asked_once(server: ScriptedServer) -> None:
    server.script(Answer(headers=HEAD), refusal(501, "NotImplemented"), Answer(headers=HEAD))
    store = server.store()
    assert store.options_of("a", with_tags=False).acl == {}
    assert store.options_of("a", with_tags=False).acl == {}
    assert not store.capabilities.has(Capability.ACL)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [refusal(403, "AccessDenied"), refusal(400, "InvalidRequest"), Answer(500, b"<html>a crash")],
    ids=["403", "400", "500"],
)
def test_an_acl_that_cannot_be_read_is_the_default_and_the_log_says_so(
    answer: Answer, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = server.store()
    for _ in range(2):
        server.script(Answer(headers=HEAD), answer)
        assert store.options_of("a", with_tags=False).acl == {}
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "ACLs cannot be read, so copies get the bucket's default; permit s3:GetObjectAcl to keep them, or set "
        'acl = "default"'
    ]


def test_a_store_that_is_only_busy_loses_no_acl(server: ScriptedServer) -> None:
    store = server.store()
    server.script(Answer(headers=HEAD), refusal(500, "InternalError"), Answer(body=PUBLIC))
    assert store.options_of("a", with_tags=False).acl == SENT.acl
    server.script(Answer(headers=HEAD), refusal(503, "SlowDown"))
    with pytest.raises(StoreUnavailableError):
        store.options_of("a", with_tags=False)


@pytest.mark.parametrize("verb", ["put", "copy", "create_upload"])
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", PermissionDeniedError),
        (400, "AccessControlListNotSupported", InvalidStoreRequestError),
    ],
)
def test_an_acl_that_cannot_be_set_is_an_error_that_says_what_to_do(
    verb: str, status: int, code: str, kind: type[Exception], server: ScriptedServer
) -> None:
    server.refuse(status, code)
    arguments: dict[str, tuple[Any, ...]] = {"put": ("a", b"x"), "copy": ("a", "b"), "create_upload": ("a",)}
    with pytest.raises(kind, match=r's3:PutObjectAcl.*set acl = "default"'):
        getattr(server.store(), verb)(*arguments[verb], options=SENT)
    assert server.requests[-1].headers["x-amz-acl"] == "public-read"


def test_metadata_that_http_cannot_show_is_not_dropped_by_a_copy(server: ScriptedServer) -> None:
    server.script(Answer(headers=HEAD | {"x-amz-missing-meta": "2"}))
    with pytest.raises(Exception, match="2 entries of the metadata of 'a' cannot be read"):
        server.store(acl="default").copy("a", "b")

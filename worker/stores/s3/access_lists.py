"""Access control lists of blobs: read from their source, and sent with a copy, which S3 never gives one by itself."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from worker.errors import (
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
)
from worker.stores.capabilities import Capability
from worker.stores.s3.request_params import Params
from worker.stores.s3.s3_bucket import S3Bucket
from worker.stores.s3.s3_errors import code_of, s3_errors

logger = logging.getLogger(__name__)

_CRASHED: Final = "500"  #: without a code of S3's: the server itself has failed over this blob, and will again
_ALL: Final = "http://acs.amazonaws.com/groups/global/AllUsers"
_AUTHENTICATED: Final = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
#: Some stores know only these. Source: S3 user guide, "Access control list (ACL) overview", canned ACL.
_CANNED: Final[dict[frozenset[tuple[str, str]], str]] = {
    frozenset({(f'uri="{_ALL}"', "READ")}): "public-read",
    frozenset({(f'uri="{_ALL}"', "READ"), (f'uri="{_ALL}"', "WRITE")}): "public-read-write",
    frozenset({(f'uri="{_AUTHENTICATED}"', "READ")}): "authenticated-read",
}
#: WRITE is missing: for objects it means nothing, and S3 takes no header for it with an object.
_HEADERS: Final = {
    "FULL_CONTROL": "x-amz-grant-full-control",
    "READ": "x-amz-grant-read",
    "READ_ACP": "x-amz-grant-read-acp",
    "WRITE_ACP": "x-amz-grant-write-acp",
}
_FIELDS: Final = {"id": "ID", "uri": "URI", "emailAddress": "EmailAddress"}


class AccessLists:
    """Those of one bucket's blobs."""

    def __init__(self, bucket: S3Bucket, *, are_kept: bool) -> None:
        """``are_kept``: False: none is read, so that every blob gets the bucket's default."""
        self._bucket = bucket
        self._are_kept = are_kept
        self._has_warned = False

    def of(self, key: str) -> dict[str, str]:
        """What the owner of the blob has granted to others, as headers; nothing if it cannot be read."""
        if not self._are_kept or not self._bucket.capabilities.has(Capability.ACL):
            return {}
        try:
            return granted(self._read(key))
        except NotSupportedError as error:
            self._bucket.capabilities.miss(Capability.ACL, reason=str(error))
        except KeyNotFoundError:  # a store's way to say that there is none; a vanished blob fails the copy itself
            pass
        except StoreError as error:
            is_about_this_blob = isinstance(error, (PermissionDeniedError, InvalidStoreRequestError))
            if not is_about_this_blob and code_of(error) != _CRASHED:
                raise
            self._warn(error)
        return {}

    def _read(self, key: str) -> Params:
        bucket = self._bucket

        def send(client: Any) -> Params:
            with s3_errors("read the ACL of", bucket=bucket.name, key=key):
                answer: Params = client.get_object_acl(Bucket=bucket.name, Key=key)
            return answer

        try:
            return send(bucket.client_without_retries)
        except StoreUnavailableError as error:
            if code_of(error) == _CRASHED:
                raise
            return send(bucket.client)

    def _warn(self, error: StoreError) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "ACLs cannot be read, so copies get the bucket's default; permit s3:GetObjectAcl to keep them, or set "
                'acl = "default"',
                extra={"bucket": self._bucket.name, "reason": str(error)},
            )


def granted(answer: Params) -> dict[str, str]:
    """The headers that give a blob the ACL of the answer; none for an ACL that every new blob has by default."""
    owner = (answer.get("Owner") or {}).get("ID") or ""
    grants = [(_grantee(grant), grant.get("Permission", "")) for grant in answer.get("Grants") or []]
    to_others = frozenset(grant for grant in grants if grant not in ((f'id="{owner}"', "FULL_CONTROL"), ("", "")))
    if not to_others:
        return {}
    if len(to_others) < len(grants) and to_others in _CANNED:
        return {"x-amz-acl": _CANNED[to_others]}
    headers = {_HEADERS[name]: _joined(grants, name) for name in _HEADERS}
    return {name: grantees for name, grantees in headers.items() if grantees}


def _grantee(grant: Params) -> str:
    grantee: dict[str, Any] = grant.get("Grantee") or {}
    return next((f'{name}="{grantee[field]}"' for name, field in _FIELDS.items() if grantee.get(field)), "")


def _joined(grants: Iterable[tuple[str, str]], permission: str) -> str:
    return ", ".join(dict.fromkeys(grantee for grantee, given in grants if grantee and given == permission))


@contextmanager
def acl_refusals(sends_acl: bool) -> Iterator[None]:
    """Add to a refusal inside the context that the request carries an ACL, which may be what is refused."""
    try:
        yield
    except (PermissionDeniedError, NotSupportedError, InvalidStoreRequestError) as error:
        if not sends_acl:
            raise
        raise type(error)(
            f"{error}; the blob's ACL is sent along, which takes s3:PutObjectAcl and a bucket with ACLs: set "
            'acl = "default" to give copies the bucket\'s own'
        ) from error

"""The S3 store: one bucket of S3 or of a compatible store, through boto3."""

import re
from collections.abc import Sequence
from typing import Final, Literal

from worker.errors import InvalidStoreRequestError, KeyNotFoundError, NotSupportedError, PermissionDeniedError
from worker.stores.blob_values import BlobHead, BlobOptions, Condition, DeleteFailure, KeyEntry, Page, PutReceipt
from worker.stores.s3.bodies import S3Reader, sending
from worker.stores.s3.request_params import (
    advanced,
    blob_head,
    blob_options,
    checksum_params,
    condition_params,
    content_length,
    option_params,
    present,
    put_receipt,
    served_at,
)
from worker.stores.s3.s3_bucket import CHECKSUMS
from worker.stores.s3.s3_client import S3Access
from worker.stores.s3.s3_errors import s3_errors
from worker.stores.s3.s3_uploads import S3Uploads
from worker.stores.store import Body

_NOT_IN_XML: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

__all__ = ["CHECKSUMS", "S3Access", "S3Store"]


class S3Store(S3Uploads):
    """One bucket: whole blobs and listings here, uploads and the client in its bases."""

    def warm_up(self) -> None:
        """Make the client now: half a second that the first request need not wait for."""
        self._client  # noqa: B018  made by looking at it

    # --- whole blobs -------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Body | bytes,
        *,
        checksum: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        """See :meth:`~worker.stores.store.Store.put`."""
        params = (
            checksum_params(checksum) | condition_params(condition) | option_params(options) | self._own_params(options)
        )
        with sending(body) as sent, s3_errors("put", bucket=self.bucket, key=key, condition=condition):
            answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=sent, **params)
        return put_receipt(answer)

    def get(self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None) -> S3Reader:
        """See :meth:`~worker.stores.store.Store.get`."""
        asked = None if offset == 0 and size is None else f"bytes={offset}-{'' if size is None else offset + size - 1}"
        with self._missing_told(key), s3_errors("get", bucket=self.bucket, key=key):
            if size == 0:  # HTTP has no range for it
                answer = self._client.head_object(Bucket=self.bucket, Key=key, **present(IfMatch=if_match))
                return S3Reader(None, 0, answer.get("ETag") or "", bucket=self.bucket, key=key)
            answer = self._client.get_object(Bucket=self.bucket, Key=key, **present(Range=asked, IfMatch=if_match))
        reader = S3Reader(answer["Body"], content_length(answer), answer.get("ETag") or "", bucket=self.bucket, key=key)
        if asked is not None and not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
            reader.close()
            raise NotSupportedError(f"s3: the store ignored the range {asked!r} of {key!r} in bucket {self.bucket!r}")
        return reader

    def head(self, key: str) -> BlobHead:
        """See :meth:`~worker.stores.store.Store.head`."""
        return blob_head(key, self._head(key))

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        """See :meth:`~worker.stores.store.Store.options_of`."""
        head = self._head(key)
        return blob_options(head, self._tags(key) if with_tags else None)

    def _tags(self, key: str) -> dict[str, str]:
        try:
            with s3_errors("read the tags of", bucket=self.bucket, key=key):
                answer = self._client.get_object_tagging(Bucket=self.bucket, Key=key)
        except (NotSupportedError, KeyNotFoundError):  # some stores answer 404 where there are none
            return {}
        except PermissionDeniedError as error:
            raise PermissionDeniedError(f"{error}; without s3:GetObjectTagging its tags would be lost") from error
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def copy(
        self,
        source_key: str,
        key: str,
        *,
        source_if_match: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        """See :meth:`~worker.stores.store.Store.copy`."""
        params = condition_params(condition) | present(CopySourceIfMatch=source_if_match)
        if options is not None:
            tagging = "COPY" if options.tags is None else "REPLACE"
            params |= option_params(options) | {"MetadataDirective": "REPLACE", "TaggingDirective": tagging}
        elif not (self._encrypt and self._storageclass):
            # S3 carries metadata and tags along, but neither storage class nor encryption.
            options = blob_options(self._head(source_key), {})
        with s3_errors("copy to", bucket=self.bucket, key=key, source_key=source_key, condition=condition):
            answer = self._client.copy_object(
                Bucket=self.bucket, Key=key, CopySource=self._source(source_key), **params, **self._own_params(options)
            )
        return put_receipt(answer | answer.get("CopyObjectResult", {}))

    # --- many keys ---------------------------------------------------------------------------------------------------

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        """See :meth:`~worker.stores.store.Store.list_page`."""
        params = present(Delimiter=delimiter or None, ContinuationToken=token)
        with s3_errors("list keys under", bucket=self.bucket, key=prefix):
            answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=limit, **params)
        return Page(
            entries=[
                KeyEntry(item["Key"], item["Size"], item["LastModified"], item.get("ETag") or "")
                for item in answer.get("Contents", [])
            ],
            prefixes=[item["Prefix"] for item in answer.get("CommonPrefixes", [])],
            next_token=advanced(answer, answer.get("NextContinuationToken"), token),
            served_at=served_at(answer),
        )

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        """See :meth:`~worker.stores.store.Store.delete_batch`."""
        if if_match is not None:
            (key,) = keys
            self._delete_if_match(key, if_match)
            return []
        if not keys:
            return []
        if len(keys) > self.limits.max_delete:
            raise InvalidStoreRequestError(f"s3: {len(keys)} keys in one delete; at most {self.limits.max_delete}")
        odd = [key for key in keys if _NOT_IN_XML.search(key)]  # one of them would spoil the whole request
        for key in odd:
            with s3_errors("delete", bucket=self.bucket, key=key):
                self._client.delete_object(Bucket=self.bucket, Key=key)
        wanted = {"Objects": [{"Key": key} for key in keys if key not in odd], "Quiet": True}
        if not wanted["Objects"]:
            return []
        with s3_errors(f"delete {len(keys)} keys, the first", bucket=self.bucket, key=keys[0]):
            answer = self._client.delete_objects(Bucket=self.bucket, Delete=wanted)
        return [
            DeleteFailure(item.get("Key", ""), item.get("Code", ""), item.get("Message", ""))
            for item in answer.get("Errors", [])
            if item.get("Code") != "NoSuchKey"
        ]

    def _delete_if_match(self, key: str, if_match: str) -> None:
        # Without a Condition: S3 answers NoSuchKey where nothing is left to delete, and that is what was wanted.
        try:
            with s3_errors("delete", bucket=self.bucket, key=key):
                self._client.delete_object(Bucket=self.bucket, Key=key, IfMatch=if_match)
        except KeyNotFoundError:
            return

    # --- else --------------------------------------------------------------------------------------------------------

    def presign(self, method: Literal["GET", "HEAD"], key: str, expires_in: int) -> str:
        """See :meth:`~worker.stores.store.Store.presign`."""
        operation = {"GET": "get_object", "HEAD": "head_object"}[method]
        with s3_errors("sign a URL for", bucket=self.bucket, key=key):
            url: str = self._client.generate_presigned_url(
                operation, Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=expires_in
            )
        return url

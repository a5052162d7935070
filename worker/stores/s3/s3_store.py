"""The S3 store: whole blobs, listings and deletes, through boto3."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from blobferry.checks.url_options import Method
from blobferry.signing.signed_url import SignedUrl
from blobferry.signing.url_terms import UrlTerms
from worker.errors import (
    ConfigurationError,
    KeyNotFoundError,
    NotSupportedError,
    PermissionDeniedError,
)
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Body,
    Condition,
    Limits,
    Page,
    PutReceipt,
)
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.s3.access_lists import AccessLists, acl_refusals
from worker.stores.s3.bodies import S3Reader, request_body
from worker.stores.s3.bucket_identity import bucket_identity
from worker.stores.s3.option_params import WriteDefaults, blob_options, option_params, tag_params, uncopied_params
from worker.stores.s3.request_params import (
    Params,
    answered_at,
    blob_head,
    checksum_params,
    condition_params,
    content_length,
    key_entries,
    next_marker,
    put_receipt,
    sent_etag,
    without_none,
)
from worker.stores.s3.s3_access import S3Access
from worker.stores.s3.s3_bucket import S3Bucket
from worker.stores.s3.s3_deletes import S3Deletes
from worker.stores.s3.s3_errors import s3_errors
from worker.stores.s3.s3_uploads import S3Uploads

CHECKSUMS: Final = ("crc64nvme", "crc32c", "md5", "none")

__all__ = ["CHECKSUMS", "S3Access", "S3Store"]


class S3Store:
    """A :class:`~worker.stores.store.Store` on a bucket of S3 or of a compatible store."""

    name = "s3"

    def __init__(
        self,
        access: S3Access,
        bucket: str,
        *,
        checksum: str = "crc64nvme",
        encrypt: bool = False,
        keyid: str | None = None,
        storageclass: str | None = None,
        acl: Literal["keep", "default"] = "keep",
        limits: Limits | None = None,
        missing: Iterable[Capability] = (),
        confirmed: Iterable[Capability] = (),
    ) -> None:
        """Sends no request. Raises ConfigurationError.

        Args:
            access: endpoint and credentials.
            bucket: name of the bucket.
            checksum: what the store can check: one of CHECKSUMS. Decides what uploads declare and completion demands.
            encrypt: request encryption at rest: with the KMS key ``keyid``, or with the store's own key without one.
            keyid: id of the KMS key; only used with ``encrypt``.
            storageclass: of everything written; None: the store's default, and copies keep the source's.
            acl: of copies: "keep" that of the source where it can be read, or have the bucket's "default".
            limits: of uploads and deletes; None: those of S3.
            missing: what the store is known to lack; the rest is found out by its refusals.
            confirmed: what it is known to have, and need not be probed for.
        """
        if checksum not in CHECKSUMS:
            raise ConfigurationError("checksum", f"{checksum!r} is none of {', '.join(CHECKSUMS)}")
        self.bucket = bucket
        self.endpoint = access.url or ""
        self.identity = bucket_identity(access.url, access.region, bucket, given=access.identity)
        self.limits = limits or Limits()
        self.checksum = checksum
        self.capabilities = Capabilities(missing, confirmed=confirmed)
        self._defaults = WriteDefaults(encrypt, keyid, storageclass)
        self._bucket = S3Bucket(access, bucket, checksum=checksum, capabilities=self.capabilities)
        self._acls = AccessLists(self._bucket, are_kept=acl == "keep")
        uploads = S3Uploads(self._bucket, self._defaults)
        self.create_upload = uploads.create_upload
        self.upload_part = uploads.upload_part
        self.copy_part = uploads.copy_part
        self.list_parts = uploads.list_parts
        self.complete_upload = uploads.complete_upload
        self.abort_upload = uploads.abort_upload
        self.list_uploads = uploads.list_uploads
        self.upload_lifetime = uploads.upload_lifetime
        self.delete_batch = S3Deletes(self._bucket, self.limits).delete_batch

    def warm_up(self) -> None:
        """Make the client now: the first request then need not wait half a second for it."""
        self._bucket.client  # noqa: B018  the property makes it

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
        params = condition_params(condition) | option_params(options) | self._defaults.params(options)

        def send(optional: Params) -> Params:
            with request_body(body) as sent, s3_errors("put", bucket=self._bucket.name, key=key, condition=condition):
                answer: Params = self._bucket.client_without_retries.put_object(
                    Bucket=self._bucket.name, Key=key, Body=sent, **params, **optional
                )
            return answer

        optional = {Capability.CHECKSUM: checksum_params(checksum), Capability.TAGGING: tag_params(options)}
        with acl_refusals(bool(options and options.acl)):
            return put_receipt(self._bucket.optional.send("put", send, optional, is_conditional=condition is not None))

    def get(self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None) -> S3Reader:
        byte_range = (
            None if offset == 0 and size is None else f"bytes={offset}-{'' if size is None else offset + size - 1}"
        )
        with self._bucket.not_found_if_unlisted(key), s3_errors("get", bucket=self._bucket.name, key=key):
            if size == 0:  # HTTP cannot express an empty range
                answer = self._bucket.client.head_object(
                    Bucket=self._bucket.name, Key=key, **without_none(IfMatch=sent_etag(if_match))
                )
                return S3Reader(None, 0, answer.get("ETag") or "", bucket=self._bucket.name, key=key)
            answer = self._bucket.client.get_object(
                Bucket=self._bucket.name, Key=key, **without_none(Range=byte_range, IfMatch=sent_etag(if_match))
            )
        reader = S3Reader(
            answer["Body"], content_length(answer), answer.get("ETag") or "", bucket=self._bucket.name, key=key
        )
        if byte_range is not None and not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
            reader.close()
            raise NotSupportedError(
                f"s3: the store ignored the range {byte_range!r} of {key!r} in bucket {self._bucket.name!r}"
            )
        return reader

    def head(self, key: str) -> BlobHead:
        return blob_head(key, self._bucket.head_object(key))

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        head = self._bucket.head_object(key)
        return blob_options(key, head, tags=self._tags(key) if with_tags else None, acl=self._acls.of(key))

    def _tags(self, key: str) -> dict[str, str]:
        try:
            with s3_errors("read the tags of", bucket=self._bucket.name, key=key):
                answer = self._bucket.client.get_object_tagging(Bucket=self._bucket.name, Key=key)
        except (NotSupportedError, KeyNotFoundError):  # some stores answer 404 if a blob has no tags
            return {}
        except PermissionDeniedError as error:
            raise PermissionDeniedError(f"{error}; without s3:GetObjectTagging its tags would be lost") from error
        return {tag["Key"]: tag.get("Value", "") for tag in answer.get("TagSet", []) if tag.get("Key")}

    def copy(
        self,
        source_key: str,
        key: str,
        *,
        source_if_match: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        params = condition_params(condition)
        optional = {Capability.COPY_SOURCE_CONDITION: without_none(CopySourceIfMatch=sent_etag(source_if_match))}
        if options is not None:
            params |= option_params(options) | {"MetadataDirective": "REPLACE"}
            directive = {"TaggingDirective": "COPY" if options.tags is None else "REPLACE"}
            optional[Capability.TAGGING] = tag_params(options) | directive
        else:
            # S3 copies metadata and tags by itself, but not the rest.
            options = self.options_of(source_key, with_tags=False)
            params |= uncopied_params(options)
        params |= self._defaults.params(options)
        source = self._bucket.copy_source(source_key)

        def send(optional: Params) -> Params:
            with s3_errors("copy to", bucket=self._bucket.name, key=key, source_key=source_key, condition=condition):
                answer: Params = self._bucket.client_without_retries.copy_object(
                    Bucket=self._bucket.name, Key=key, CopySource=source, **params, **optional
                )
            return answer

        with acl_refusals(bool(options.acl)):
            answer = self._bucket.optional.send("copy", send, optional, is_conditional=condition is not None)
        return put_receipt(answer | answer.get("CopyObjectResult", {}))

    # --- many keys ---------------------------------------------------------------------------------------------------

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        params = without_none(Delimiter=delimiter or None, ContinuationToken=token)
        with s3_errors("list keys under", bucket=self._bucket.name, key=prefix):
            answer = self._bucket.client.list_objects_v2(
                Bucket=self._bucket.name, Prefix=prefix, MaxKeys=limit, **params
            )
        return Page(
            entries=key_entries(answer),
            prefixes=[item["Prefix"] for item in answer.get("CommonPrefixes", []) if item.get("Prefix")],
            next_token=next_marker(answer, answer.get("NextContinuationToken"), token),
            served_at=answered_at(answer),
        )

    # --- else --------------------------------------------------------------------------------------------------------

    def presign(self, method: Method, key: str, expires_in: int, headers: Mapping[str, str] | None = None) -> SignedUrl:
        terms, put_params = UrlTerms(method, expires_in, headers or {}), self._defaults.params(None)
        with s3_errors("sign a URL for", bucket=self._bucket.name, key=key):
            return self._bucket.signer.sign(terms, self._bucket.name, key, put_params)

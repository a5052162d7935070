"""Multipart uploads of the S3 store."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from worker.errors import InvalidStoreRequestError, KeyNotFoundError, NotSupportedError
from worker.stores.blob_values import BlobOptions, Body, Condition, PartReceipt, PutReceipt, UploadEntry
from worker.stores.capabilities import Capability
from worker.stores.s3.access_lists import acl_refusals
from worker.stores.s3.bodies import request_body
from worker.stores.s3.option_params import WriteDefaults, option_params, tag_params
from worker.stores.s3.request_params import (
    Params,
    abort_days,
    checksum_params,
    condition_params,
    next_marker,
    part_params,
    part_receipt,
    put_receipt,
    sent_etag,
    upload_id_of,
    whole_blob_params,
    without_none,
)
from worker.stores.s3.s3_bucket import S3Bucket
from worker.stores.s3.s3_errors import s3_errors

UNKNOWN_SIZE: Final = -1  #: of a part whose size the store does not list: equal to no size, so it is sent again


class S3Uploads:
    """The upload methods of :class:`~worker.stores.store.Store`, for one bucket."""

    def __init__(self, bucket: S3Bucket, defaults: WriteDefaults) -> None:
        self._bucket = bucket
        self._defaults = defaults

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        params = option_params(options) | self._defaults.params(options)

        def send(optional: Params) -> Params:
            with s3_errors("open an upload to", bucket=self._bucket.name, key=key):
                answer: Params = self._bucket.client_without_retries.create_multipart_upload(
                    Bucket=self._bucket.name, Key=key, **params, **optional
                )
            return answer

        algorithm = self._bucket.algorithm
        declared = {"ChecksumAlgorithm": algorithm, "ChecksumType": "FULL_OBJECT"} if algorithm else {}
        optional = {Capability.CHECKSUM: declared, Capability.TAGGING: tag_params(options)}
        with acl_refusals(bool(options and options.acl)):
            return upload_id_of(self._bucket.optional.send("create_upload", send, optional))

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        upload = {"Bucket": self._bucket.name, "Key": key, "UploadId": upload_id}
        action = f"upload part {part_number} of"

        def send(optional: Params) -> Params:
            with request_body(body) as sent, s3_errors(action, bucket=self._bucket.name, key=key, upload_id=upload_id):
                answer: Params = self._bucket.client.upload_part(
                    **upload, PartNumber=part_number, Body=sent, **optional
                )
            return answer

        optional = {Capability.CHECKSUM: checksum_params(checksum)}
        return part_receipt(self._bucket.optional.send("upload_part", send, optional), part_number, len(body))

    def copy_part(
        self,
        key: str,
        upload_id: str,
        part_number: int,
        source_key: str,
        offset: int,
        size: int,
        *,
        source_if_match: str | None = None,
    ) -> PartReceipt:
        action = f"copy part {part_number} of"

        def send(optional: Params) -> Params:
            with s3_errors(action, bucket=self._bucket.name, key=key, upload_id=upload_id, source_key=source_key):
                answer: Params = self._bucket.client.upload_part_copy(
                    Bucket=self._bucket.name,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=part_number,
                    CopySource=self._bucket.copy_source(source_key),
                    CopySourceRange=f"bytes={offset}-{offset + size - 1}",
                    **optional,
                )
            return answer

        optional = {Capability.COPY_SOURCE_CONDITION: without_none(CopySourceIfMatch=sent_etag(source_if_match))}
        answer = self._bucket.optional.send("copy_part", send, optional)
        return part_receipt(answer.get("CopyPartResult", {}), part_number, size)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        marker = 0
        while True:
            with s3_errors("list the parts of", bucket=self._bucket.name, key=key, upload_id=upload_id):
                answer = self._bucket.client.list_parts(
                    Bucket=self._bucket.name, Key=key, UploadId=upload_id, PartNumberMarker=marker
                )
            found = [item for item in answer.get("Parts", []) if item.get("PartNumber")]
            for item in found:
                yield part_receipt(item, item["PartNumber"], item.get("Size", UNKNOWN_SIZE))
            # Not the answer's NextPartNumberMarker, which some stores omit.
            following = next_marker(answer, found[-1]["PartNumber"] if found else None, marker)
            if following is None:
                return
            marker = following

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[PartReceipt],
        *,
        checksum: str | None = None,
        size: int | None = None,
        condition: Condition | None = None,
    ) -> PutReceipt:
        listed = sum(part.size for part in parts)
        if size is not None and listed != size:
            raise InvalidStoreRequestError(f"s3: the parts of {key!r} hold {listed} bytes, expected {size}")
        algorithm = self._bucket.algorithm
        params = condition_params(condition) | _parts_params(parts, None)

        def send(optional: Params) -> Params:
            with s3_errors("complete", bucket=self._bucket.name, key=key, upload_id=upload_id, condition=condition):
                answer: Params = self._bucket.client_without_retries.complete_multipart_upload(
                    Bucket=self._bucket.name, Key=key, UploadId=upload_id, **(params | optional)
                )
            return answer

        optional = {
            Capability.UPLOAD_SIZE: without_none(MpuObjectSize=size if algorithm else None),
            Capability.CHECKSUM: (
                whole_blob_params(algorithm, checksum) | _parts_params(parts, algorithm) if algorithm else {}
            ),
        }
        is_conditional = condition is not None
        answer = self._bucket.optional.send("complete_upload", send, optional, is_conditional=is_conditional)
        return put_receipt(answer)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with s3_errors("abort the upload to", bucket=self._bucket.name, key=key, upload_id=upload_id):
            self._bucket.client.abort_multipart_upload(Bucket=self._bucket.name, Key=key, UploadId=upload_id)

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        markers: Params = {}
        capabilities = self._bucket.capabilities
        while True:
            if not capabilities.has(Capability.LIST_UPLOADS):
                raise NotSupportedError("s3: the store does not list unfinished uploads")
            try:
                with s3_errors("list uploads under", bucket=self._bucket.name, key=prefix):
                    answer = self._bucket.client.list_multipart_uploads(
                        Bucket=self._bucket.name, Prefix=prefix, **markers
                    )
            except NotSupportedError as error:
                capabilities.miss(Capability.LIST_UPLOADS, reason=str(error))
                raise
            found = [item for item in answer.get("Uploads", []) if item.get("Key") and item.get("UploadId")]
            for item in found:
                yield UploadEntry(item["Key"], item["UploadId"], item.get("Initiated"))
            last = {"KeyMarker": found[-1]["Key"], "UploadIdMarker": found[-1]["UploadId"]} if found else None
            following = next_marker(answer, last, markers)
            if following is None:
                return
            markers = following

    def upload_lifetime(self, key: str) -> timedelta | None:
        try:
            with s3_errors("read the lifecycle rules of", bucket=self._bucket.name):
                answer = self._bucket.client.get_bucket_lifecycle_configuration(Bucket=self._bucket.name)
        except KeyNotFoundError:  # NoSuchLifecycleConfiguration
            return None
        days = [rule_days for rule in answer.get("Rules", []) if (rule_days := abort_days(rule, key)) is not None]
        return timedelta(days=min(days)) if days else None


def _parts_params(parts: Sequence[PartReceipt], algorithm: str | None) -> Params:
    """The list of parts; with their checksums, if the store has such an algorithm."""
    return {"MultipartUpload": {"Parts": [part_params(part, algorithm) for part in parts]}}

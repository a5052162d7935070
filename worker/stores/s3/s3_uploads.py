"""Multipart uploads of the S3 store."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from worker.errors import InvalidStoreRequestError, KeyNotFoundError
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt, PutReceipt, UploadEntry
from worker.stores.s3.bodies import request_body
from worker.stores.s3.request_params import (
    Params,
    WriteDefaults,
    abort_days,
    checksum_params,
    condition_params,
    next_marker,
    option_params,
    part_params,
    part_receipt,
    put_receipt,
    whole_blob_params,
    without_none,
)
from worker.stores.s3.s3_bucket import S3Bucket
from worker.stores.s3.s3_errors import s3_errors
from worker.stores.store import Body


class S3Uploads:
    """The upload methods of :class:`~worker.stores.store.Store`, for one bucket."""

    def __init__(self, bucket: S3Bucket, defaults: WriteDefaults) -> None:
        self._bucket = bucket
        self._defaults = defaults

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        params = option_params(options) | self._defaults.params(options)
        if self._bucket.algorithm is not None:
            params |= {"ChecksumAlgorithm": self._bucket.algorithm, "ChecksumType": "FULL_OBJECT"}
        with s3_errors("open an upload to", bucket=self._bucket.name, key=key):
            answer = self._bucket.client_without_retries.create_multipart_upload(
                Bucket=self._bucket.name, Key=key, **params
            )
        upload_id: str = answer["UploadId"]
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        upload = {"Bucket": self._bucket.name, "Key": key, "UploadId": upload_id}
        action = f"upload part {part_number} of"
        with request_body(body) as sent, s3_errors(action, bucket=self._bucket.name, key=key, upload_id=upload_id):
            answer = self._bucket.client.upload_part(
                **upload, PartNumber=part_number, Body=sent, **checksum_params(checksum)
            )
        return part_receipt(answer, part_number, len(body))

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
        with s3_errors(
            f"copy part {part_number} of", bucket=self._bucket.name, key=key, upload_id=upload_id, source_key=source_key
        ):
            answer = self._bucket.client.upload_part_copy(
                Bucket=self._bucket.name,
                Key=key,
                UploadId=upload_id,
                PartNumber=part_number,
                CopySource=self._bucket.copy_source(source_key),
                CopySourceRange=f"bytes={offset}-{offset + size - 1}",
                **without_none(CopySourceIfMatch=source_if_match),
            )
        return part_receipt(answer.get("CopyPartResult", {}), part_number, size)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        marker = 0
        while True:
            with s3_errors("list the parts of", bucket=self._bucket.name, key=key, upload_id=upload_id):
                answer = self._bucket.client.list_parts(
                    Bucket=self._bucket.name, Key=key, UploadId=upload_id, PartNumberMarker=marker
                )
            found = answer.get("Parts", [])
            for item in found:
                yield part_receipt(item, item["PartNumber"], item["Size"])
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
        params = whole_blob_params(self._bucket.algorithm, checksum, size) | condition_params(condition)
        wanted = {"Parts": [part_params(part, self._bucket.algorithm) for part in parts]}
        with s3_errors("complete", bucket=self._bucket.name, key=key, upload_id=upload_id, condition=condition):
            answer = self._bucket.client.complete_multipart_upload(
                Bucket=self._bucket.name, Key=key, UploadId=upload_id, MultipartUpload=wanted, **params
            )
        return put_receipt(answer)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with s3_errors("abort the upload to", bucket=self._bucket.name, key=key, upload_id=upload_id):
            self._bucket.client.abort_multipart_upload(Bucket=self._bucket.name, Key=key, UploadId=upload_id)

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        markers: Params = {}
        while True:
            with s3_errors("list uploads under", bucket=self._bucket.name, key=prefix):
                answer = self._bucket.client.list_multipart_uploads(Bucket=self._bucket.name, Prefix=prefix, **markers)
            found = answer.get("Uploads", [])
            for item in found:
                yield UploadEntry(item["Key"], item["UploadId"], item["Initiated"])
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

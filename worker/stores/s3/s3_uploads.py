"""Multipart uploads of the S3 store."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from worker.errors import InvalidStoreRequestError, KeyNotFoundError
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt, PutReceipt, UploadEntry
from worker.stores.s3.bodies import sending
from worker.stores.s3.request_params import (
    Params,
    abort_days,
    advanced,
    checksum_params,
    condition_params,
    guard_params,
    option_params,
    part_params,
    part_receipt,
    present,
    put_receipt,
)
from worker.stores.s3.s3_bucket import S3Bucket
from worker.stores.s3.s3_errors import s3_errors
from worker.stores.store import Body


class S3Uploads(S3Bucket):
    """The verbs of an upload."""

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        """See :meth:`~worker.stores.store.Store.create_upload`."""
        params = option_params(options) | self._own_params(options)
        if self._algorithm is not None:
            params |= {"ChecksumAlgorithm": self._algorithm, "ChecksumType": "FULL_OBJECT"}
        with s3_errors("open an upload to", bucket=self.bucket, key=key):
            answer = self._clients.once.create_multipart_upload(Bucket=self.bucket, Key=key, **params)
        upload_id: str = answer["UploadId"]
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        """See :meth:`~worker.stores.store.Store.upload_part`."""
        upload = {"Bucket": self.bucket, "Key": key, "UploadId": upload_id}
        action = f"upload part {part_number} of"
        with sending(body) as sent, s3_errors(action, bucket=self.bucket, key=key, upload_id=upload_id):
            answer = self._client.upload_part(**upload, PartNumber=part_number, Body=sent, **checksum_params(checksum))
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
        """See :meth:`~worker.stores.store.Store.copy_part`."""
        with s3_errors(
            f"copy part {part_number} of", bucket=self.bucket, key=key, upload_id=upload_id, source_key=source_key
        ):
            answer = self._client.upload_part_copy(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=part_number,
                CopySource=self._source(source_key),
                CopySourceRange=f"bytes={offset}-{offset + size - 1}",
                **present(CopySourceIfMatch=source_if_match),
            )
        return part_receipt(answer.get("CopyPartResult", {}), part_number, size)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        """See :meth:`~worker.stores.store.Store.list_parts`."""
        marker = 0
        while True:
            with s3_errors("list the parts of", bucket=self.bucket, key=key, upload_id=upload_id):
                answer = self._client.list_parts(
                    Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumberMarker=marker
                )
            found = answer.get("Parts", [])
            for item in found:
                yield part_receipt(item, item["PartNumber"], item["Size"])
            # Not the answer's own marker, which some stores leave out.
            following = advanced(answer, found[-1]["PartNumber"] if found else None, marker)
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
        """See :meth:`~worker.stores.store.Store.complete_upload`."""
        listed = sum(part.size for part in parts)
        if size is not None and listed != size:
            raise InvalidStoreRequestError(f"s3: the parts of {key!r} hold {listed} bytes instead of {size}")
        params = guard_params(self._algorithm, checksum, size) | condition_params(condition)
        wanted = {"Parts": [part_params(part, self._algorithm) for part in parts]}
        with s3_errors("complete", bucket=self.bucket, key=key, upload_id=upload_id, condition=condition):
            answer = self._client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload=wanted, **params
            )
        return put_receipt(answer)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See :meth:`~worker.stores.store.Store.abort_upload`."""
        with s3_errors("abort the upload to", bucket=self.bucket, key=key, upload_id=upload_id):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """See :meth:`~worker.stores.store.Store.list_uploads`."""
        markers: Params = {}
        while True:
            with s3_errors("list uploads under", bucket=self.bucket, key=prefix):
                answer = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, **markers)
            found = answer.get("Uploads", [])
            for item in found:
                yield UploadEntry(item["Key"], item["UploadId"], item["Initiated"])
            last = {"KeyMarker": found[-1]["Key"], "UploadIdMarker": found[-1]["UploadId"]} if found else None
            following = advanced(answer, last, markers)
            if following is None:
                return
            markers = following

    def upload_lifetime(self, key: str) -> timedelta | None:
        """See :meth:`~worker.stores.store.HasLifecycle.upload_lifetime`."""
        try:
            with s3_errors("read the lifecycle rules of", bucket=self.bucket):
                answer = self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        except KeyNotFoundError:  # NoSuchLifecycleConfiguration
            return None
        days = [rule_days for rule in answer.get("Rules", []) if (rule_days := abort_days(rule, key)) is not None]
        return timedelta(days=min(days)) if days else None

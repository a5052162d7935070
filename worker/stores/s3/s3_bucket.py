"""What every verb of the S3 store needs: the bucket, its client, and what the store asks for by itself."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from worker.errors import (
    ConfigurationError,
    CredentialsError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    PermissionDeniedError,
    StoreError,
)
from worker.stores.blob_values import BlobOptions, Limits
from worker.stores.checksums import FULL_OBJECT_ALGORITHMS
from worker.stores.s3.request_params import Params, present
from worker.stores.s3.s3_client import S3Access, S3Clients, make_clients
from worker.stores.s3.s3_errors import S3_ERRORS, s3_errors

CHECKSUMS: Final = ("crc64nvme", "crc32c", "md5", "none")


class S3Bucket:
    """A bucket. The client is made at the first request, so a store may be built before its process forks."""

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
        limits: Limits | None = None,
    ) -> None:
        """Sends no request.

        Args:
            checksum: what the store can check: one of CHECKSUMS. Decides what uploads declare and completion demands.
            encrypt: ask for encryption at rest: by the KMS key ``keyid``, or by the store's own key without one.
            storageclass: of everything written; None: the store's default, and copies keep the source's.
        """
        if checksum not in CHECKSUMS:
            raise ConfigurationError("checksum", f"{checksum!r} is none of {', '.join(CHECKSUMS)}")
        self.bucket = bucket
        self.endpoint = access.url or ""
        self.limits = limits or Limits()
        self.checksum = checksum
        self._algorithm = FULL_OBJECT_ALGORITHMS.get(checksum)
        self._encryption = present(ServerSideEncryption="aws:kms" if keyid else "AES256", SSEKMSKeyId=keyid)
        self._encrypt = encrypt
        self._storageclass = storageclass
        self._access = access
        self._lock = threading.Lock()
        self._made_clients: S3Clients | None = None

    @property
    def _clients(self) -> S3Clients:
        with self._lock:
            if self._made_clients is not None:
                return self._made_clients
            with s3_errors("make a client for", bucket=self.bucket):
                made = make_clients(self._access)
            for client in (made.patient, made.once):
                client.meta.events.register("after-call.s3", self._forget_what_expired)
            # Ambient credentials may come later, or be renewed in a file that boto3 reads but once.
            self._made_clients = made if made.has_credentials else None
            return made

    def _forget_what_expired(self, parsed: Params, **_: Any) -> None:
        code = parsed.get("Error", {}).get("Code")
        if self._access.access_key is None and S3_ERRORS.get(str(code)) is CredentialsError:
            self._made_clients = None  # what goes on with them is not disturbed

    @property
    def _client(self) -> Any:
        return self._clients.patient

    def _head(self, key: str) -> Params:
        # Stores that know no checksums may refuse the header that asks for them.
        mode = "ENABLED" if self._algorithm else None
        with self._missing_told(key), s3_errors("look at", bucket=self.bucket, key=key):
            answer: Params = self._client.head_object(Bucket=self.bucket, Key=key, **present(ChecksumMode=mode))
        return answer

    @contextmanager
    def _missing_told(self, key: str) -> Iterator[None]:
        """Ask by a listing what an answer to HEAD, which has no body, does not tell.

        S3 says "denied" of a key that is not there to whoever may not list the whole bucket, but perhaps its prefix;
        and "bad request" to credentials that have expired. Source: S3 API reference, "HeadObject", permissions.
        """
        try:
            yield
        except (PermissionDeniedError, InvalidStoreRequestError) as denied:
            try:
                with s3_errors("list", bucket=self.bucket, key=key):
                    answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=1)
            except CredentialsError:
                raise
            except StoreError:
                raise denied from None
            if isinstance(denied, InvalidStoreRequestError):
                raise
            if any(item["Key"] == key for item in answer.get("Contents", [])):
                raise
            raise KeyNotFoundError(f"s3: nothing is stored under {key!r} in bucket {self.bucket!r}") from denied

    def _source(self, key: str) -> Params:
        return {"Bucket": self.bucket, "Key": key}  # botocore percent-encodes a dict, but takes a str as it is

    def _own_params(self, options: BlobOptions | None) -> Params:
        """Storage class and encryption: the store's own where it is configured with them, else the blob's."""
        options = options or BlobOptions()
        encryption = present(ServerSideEncryption=options.encryption, SSEKMSKeyId=options.encryption_key)
        return present(StorageClass=self._storageclass or options.storage_class) | (
            self._encryption if self._encrypt else encryption
        )

"""A bucket of S3: its boto3 client, and HEAD requests, whose answers need interpretation."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from blobferry.signing.s3_signer import S3Signer
from worker.errors import (
    CredentialsError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    PermissionDeniedError,
    StoreError,
)
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.checksums import FULL_OBJECT_ALGORITHMS
from worker.stores.s3.optional_params import OptionalParams
from worker.stores.s3.request_params import Params
from worker.stores.s3.s3_access import S3Access
from worker.stores.s3.s3_client import S3Clients, make_clients
from worker.stores.s3.s3_errors import S3_ERRORS, s3_errors


class S3Bucket:
    """One bucket. Its client is made at the first request, so a store may be built before its process forks."""

    def __init__(self, access: S3Access, name: str, *, checksum: str, capabilities: Capabilities) -> None:
        """``checksum``: the algorithm of new blobs, as :attr:`~worker.stores.store.Store.checksum`."""
        self.name = name
        self.capabilities = capabilities
        self.optional = OptionalParams(capabilities)
        self.algorithm = FULL_OBJECT_ALGORITHMS.get(checksum)  #: S3's name; None: no full-object checksums
        self._access = access
        self._lock = threading.Lock()
        self._cached_clients: S3Clients | None = None

    @property
    def client(self) -> Any:
        """The boto3 client that retries requests by itself."""
        return self._clients.retrying

    @property
    def client_without_retries(self) -> Any:
        """The boto3 client that sends each request once."""
        return self._clients.single_try

    @property
    def signer(self) -> S3Signer:
        """What signs URLs."""
        return self._clients.signer

    @property
    def _clients(self) -> S3Clients:
        with self._lock:
            if self._cached_clients is not None:
                return self._cached_clients
            with s3_errors("make a client for", bucket=self.name):
                clients = make_clients(self._access)
            for client in (clients.retrying, clients.single_try):
                client.meta.events.register("after-call.s3", self._drop_clients_with_expired_credentials)
            # Ambient credentials may appear later, or be renewed in a file that boto3 reads only once.
            self._cached_clients = clients if clients.has_credentials else None
            return clients

    def _drop_clients_with_expired_credentials(self, parsed: Params, **_: Any) -> None:
        code = parsed.get("Error", {}).get("Code")
        if self._access.access_key is None and S3_ERRORS.get(str(code)) is CredentialsError:
            self._cached_clients = None  # requests in progress keep theirs

    def head_object(self, key: str) -> Params:
        """The answer to HEAD, with the checksum. Raises KeyNotFoundError."""

        def send(params: Params) -> Params:
            with s3_errors("look at", bucket=self.name, key=key):
                answer: Params = self.client.head_object(Bucket=self.name, Key=key, **params)
            return answer

        # Stores without checksums may refuse the header that requests them.
        mode = {"ChecksumMode": "ENABLED"} if self.algorithm else {}
        with self.not_found_if_unlisted(key):
            return self.optional.send("head", send, {Capability.CHECKSUM_MODE: mode})

    @contextmanager
    def not_found_if_unlisted(self, key: str) -> Iterator[None]:
        """Replace "denied" inside the context by KeyNotFoundError if a listing shows that the key is missing.

        S3 answers 403 to HEAD and GET of a missing key where the caller may not list the whole bucket, although it may
        be allowed to list this prefix. An answer to HEAD has no body, so it also shows expired credentials only as
        "bad request"; the listing then raises CredentialsError. Source: S3 API reference, "HeadObject", permissions.
        """
        try:
            yield
        except (PermissionDeniedError, InvalidStoreRequestError) as denied:
            try:
                with s3_errors("list", bucket=self.name, key=key):
                    answer = self.client.list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)
            except CredentialsError:
                raise
            except StoreError:
                raise denied from None
            if isinstance(denied, InvalidStoreRequestError):
                raise
            if any(item.get("Key") == key for item in answer.get("Contents", [])):
                raise
            raise KeyNotFoundError(f"s3: nothing is stored under {key!r} in bucket {self.name!r}") from denied

    def copy_source(self, key: str) -> Params:
        """The CopySource parameter: botocore percent-encodes a dict, but sends a str unchanged."""
        return {"Bucket": self.name, "Key": key}

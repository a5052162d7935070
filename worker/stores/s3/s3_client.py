"""Makes boto3 clients. All client settings for speed, retries and compatible stores are here."""

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.loaders import create_loader
from botocore.session import get_session
from botocore.utils import is_valid_endpoint_url

from worker.errors import ConfigurationError, StoreUnavailableError
from worker.stores.attempts import before_attempt
from worker.stores.s3.sockets import time_out_without_progress

SIGNATURE_VERSION: Final = "s3v4"  # the default presigns URLs with SigV2, which many regions refuse


@dataclass(frozen=True, slots=True)
class S3Access:
    """Endpoint, credentials and connection settings of a bucket's server. Its repr hides secrets."""

    region: str | None = None
    endpoint: str = ""  #: "" is AWS; without a scheme ``secure`` decides
    identity: str | None = None  #: names the endpoint where it is one of several; None: the endpoint itself
    access_key: str | None = field(default=None, repr=False)  #: None: boto3's ambient chain
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    path_style: bool = False  #: True: http://host/bucket/key even where the bucket could be part of the host name
    secure: bool = True
    sign_payload: bool = False  #: for stores that refuse UNSIGNED-PAYLOAD; costs a SHA-256 of every byte
    max_pool_connections: int = 10  #: at least as many as threads share the client; connections above it are not reused
    connect_timeout: float = 5.0  #: seconds
    read_timeout: float = 60.0  #: seconds without a byte in either direction
    max_attempts: int = 3  #: of one request, the first included

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            missing = "accesskey" if self.access_key is None else "secretkey"
            raise ConfigurationError(missing, "accesskey and secretkey go together; leave out both for ambient ones")
        # The URL may hold a password: keep it out of the message and of the ledger.
        if self.url is not None and ("@" in self.url or not is_valid_endpoint_url(self.url)):
            raise ConfigurationError("regionendpoint", "must be a URL or a host, without user name and password")

    @property
    def url(self) -> str | None:
        """The endpoint with its scheme; None for AWS."""
        if not self.endpoint or "://" in self.endpoint:
            return self.endpoint or None
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"


@dataclass(frozen=True, slots=True)
class S3Clients:
    """Two boto3 S3 clients that share their credentials."""

    retrying: Any  #: retries requests by itself: for what may be repeated at any time without a change for readers
    #: Never retries. For what commits or deletes: only the layer that knows the lease repeats it, after a look.
    #: Also for CreateMultipartUpload: a retry after a lost answer would leave an upload with an unknown id.
    single_try: Any
    has_credentials: bool  #: False: boto3 found none, and these clients will not look again


def make_clients(access: S3Access) -> S3Clients:
    """The clients of a store. Sends no request, except to look up ambient credentials."""
    basis = get_session()
    loader = _loader(basis.get_config_variable("data_path"))
    basis.register_component("data_loader", loader)
    session = boto3.session.Session(
        botocore_session=basis,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        aws_session_token=access.session_token,
        region_name=access.region,
    )
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # boto3 1.44.5 adds its own for each session
    retrying, single_try = _make_client(session, access, access.max_attempts), _make_client(session, access, 1)
    single_try.meta.events.register_last("needs-retry.s3", _refuse_redirect)
    return S3Clients(retrying, single_try, has_credentials=session.get_credentials() is not None)


@cache
def _loader(data_path: str | None) -> Any:
    """The loader that parses and caches the megabytes of JSON describing S3: one per process.

    botocore makes one for each session: https://github.com/boto/botocore/issues/3078.
    """
    return create_loader(data_path)


def _make_client(session: Any, access: S3Access, max_attempts: int) -> Any:
    config = _config(access, max_attempts)
    client = session.client("s3", endpoint_url=access.url, use_ssl=access.secure, config=config)
    # botocore sends "Expect: 100-continue" with every file-like body: one more round trip per part. It has
    # no setting against it (botocore 1.44.5); no upstream report found.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register("before-call.s3.DeleteObjects", _send_content_md5)
    client.meta.events.register("before-send.s3", _before_attempt)
    time_out_without_progress(client, access.read_timeout)
    return client


def _config(access: S3Access, max_attempts: int) -> Config:
    return Config(
        signature_version=SIGNATURE_VERSION,
        s3={
            "addressing_style": "path" if access.path_style else "auto",
            # Parts carry their own checksum; a SHA-256 for the signature would double the CPU time.
            "payload_signing_enabled": access.sign_payload,
        },
        # "when_supported" adds CRC32 trailers, which compatible stores refuse or, worse, store as content.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        max_pool_connections=access.max_pool_connections,
        connect_timeout=access.connect_timeout,
        read_timeout=access.read_timeout,
        tcp_keepalive=True,
    )


#: botocore's operations by the verbs of :class:`~worker.stores.store.Store`; the others by botocore's own names.
_VERBS: Final = {
    "PutObject": "put",
    "GetObject": "get",
    "HeadObject": "head",
    "GetObjectTagging": "get_tags",
    "CopyObject": "copy",
    "ListObjectsV2": "list",
    "DeleteObject": "delete",
    "DeleteObjects": "delete_batch",
    "CreateMultipartUpload": "create_upload",
    "UploadPart": "upload_part",
    "UploadPartCopy": "copy_part",
    "ListParts": "list_parts",
    "CompleteMultipartUpload": "complete_upload",
    "AbortMultipartUpload": "abort_upload",
    "ListMultipartUploads": "list_uploads",
}


def _before_attempt(event_name: str, **_: Any) -> None:
    operation = event_name.rpartition(".")[2]
    before_attempt(_VERBS.get(operation, operation))


def _refuse_redirect(request_dict: dict[str, Any], operation: Any, **_: Any) -> None:
    """Called after botocore has learned the bucket's region from a redirect, right before it sends the request again.

    An error ends the call. The next one goes to that region at once.
    """
    if request_dict["context"].get("s3_redirect", {}).get("redirected"):
        raise StoreUnavailableError(f"s3: {operation.name} was redirected to the bucket's region: check region")


def _send_content_md5(params: dict[str, Any], **_: Any) -> None:
    # DeleteObjects requires a checksum, and Content-MD5 is accepted by AWS and by every compatible store.
    # botocore no longer sends it: https://github.com/boto/boto3/issues/4392.
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    checksum = params["context"].get("checksum", {})
    checksum.pop("request_algorithm", None)
    checksum.pop("request_algorithm_header", None)

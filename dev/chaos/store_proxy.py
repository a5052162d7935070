"""The way to the store: a fault proxy that also makes it honour conditions, as S3 does and Swift does not.

Without them a request that was held up for seconds, by a stopped worker or a late network, may replace what came since:
nothing at the client's end can help there, and ``doctor`` says so. The harm would be the store's, not the product's.
"""

import http.client
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from dev.proxies.s3_fault_rules import Call, Exchange, Fault
from dev.proxies.s3_faults import FaultHandler, FaultProxy
from dev.services.s3_server import S3Service
from dev.serving import served

#: What may go wrong at any time. A permission that is withdrawn would rightly fail the job.
FAULTS: Final = (
    *(Fault("", kind) for kind in ("slow_down", "internal_error", "hang_up", "cut_request", "cut_answer", "stall")),
    Fault("", "hang_up", effect=True),
    Fault("", "internal_error", effect=True),
    *(Fault(operation, "error_in_200") for operation in ("complete_upload", "copy", "copy_part")),
    *(Fault(operation, "late") for operation in ("create_upload", "upload_part", "put", "complete_upload")),
)
SOME: Final = 0.02  #: of all requests, at any time
MANY: Final = 0.35  #: in a storm
STALL_SECONDS: Final = 3.0
KEPT: Final = 1_000  #: exchanges


class ChaosProxy(FaultProxy):
    """A fault proxy that remembers its faults and honours If-Match and If-None-Match."""

    def __init__(self, s3: S3Service, upstream: str) -> None:
        super().__init__(upstream, stall_seconds=STALL_SECONDS)
        self.server.RequestHandlerClass = _ConditionalHandler
        self.hits: list[tuple[float, Exchange]] = []  #: when a fault began, and what it was
        self.received: Counter[tuple[str, str]] = (
            Counter()
        )  #: bytes of blobs by bucket and key, those of no use included
        self.s3 = s3.client()
        self.credentials = Credentials(s3.access_key, s3.secret_key)
        self.region = s3.region
        self.locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def begin(self, call: Call, sent: int) -> Exchange:
        """Remember it if it gets a fault."""
        exchange = super().begin(call, sent)
        if call.operation in ("put", "upload_part"):
            self.received[call.bucket, call.key] += sent
        if exchange.fault is not None:
            self.hits.append((time.monotonic(), exchange))
        if len(self._exchanges) > KEPT:
            self._set(self._choose)
        return exchange

    def some(self, seed: int) -> None:
        """Let requests fail now and then."""
        self.inject_at_random(seed, SOME, FAULTS)

    def storm(self, seed: int) -> None:
        """Let them fail often."""
        self.inject_at_random(seed, MANY, FAULTS)

    def hang_deletes(self, seed: int) -> None:
        """Let no delete through."""
        self.inject_at_random(seed, 1.0, [Fault("delete", "stall"), Fault("delete_batch", "stall")])

    def stall(self, seed: int) -> None:
        """Let none through."""
        self.inject_at_random(seed, 1.0, [Fault("", "stall")])

    def lose(self, bucket: str, key: str, upload_id: str) -> None:
        """Abort the upload, before its completion or after: one in the middle leaves Swift a blob without its bytes."""
        with self.locks[f"/{bucket}/{key}"], suppress(ClientError):  # it is no more
            self.s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)


@contextmanager
def chaos_proxy(s3: S3Service, upstream: str) -> Iterator[ChaosProxy]:
    """One in front of ``upstream``, which leads to the store, that injects nothing yet."""
    proxy = ChaosProxy(s3, upstream)
    with served(proxy.server, before_close=proxy.server.hang_up):
        try:
            yield proxy
        finally:
            proxy.ending.set()


class _ConditionalHandler(FaultHandler):
    """Evaluates the conditions once the whole request is here, holding the lock of the key."""

    @contextmanager
    def _forwarded(self, body: Iterable[bytes]) -> Iterator[http.client.HTTPResponse]:
        proxy = self.server.proxy
        assert isinstance(proxy, ChaosProxy)
        has_condition = self.headers["If-Match"] or self.headers["If-None-Match"]
        completes = self._exchange.call.operation == "complete_upload"
        if self.command not in ("PUT", "POST", "DELETE") or not (has_condition or completes):
            with super()._forwarded(body) as answer:
                yield answer
            return
        body = list(body)
        with proxy.locks[self.path.partition("?")[0]]:
            refusal = None
            if wanted := self.headers["If-Match"]:
                refusal = self._refusal(proxy, wanted.strip('"'))
                del self.headers["If-Match"]
                self._sign(proxy)
            if refusal is not None:
                yield refusal  # type: ignore[misc]
                return
            with super()._forwarded(body) as answer:
                yield answer

    def _refusal(self, proxy: ChaosProxy, wanted: str) -> "_Refusal | None":
        bucket, key = self._exchange.call.bucket, self._exchange.call.key
        try:
            there = proxy.s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                return _Refusal(503, "ServiceUnavailable")
            return _Refusal(404, "NoSuchKey")
        except BotoCoreError:
            return _Refusal(503, "ServiceUnavailable")
        return None if there == wanted else _Refusal(412, "PreconditionFailed")

    def _sign(self, proxy: ChaosProxy) -> None:
        signed = {name.lower() for name in _signed(self.headers["Authorization"])} - {"if-match", "host"}
        headers = {name: value for name, value in self.headers.items() if name.lower() in signed}
        url = f"http://{self.headers['Host']}{self.path}"
        request = AWSRequest(method=self.command, url=url, headers=headers)
        _Signature(self.headers["x-amz-content-sha256"], proxy.credentials, "s3", proxy.region).add_auth(request)
        for name in ("Authorization", "X-Amz-Date"):
            del self.headers[name]
            self.headers[name] = request.headers[name]


class _Refusal:
    """An answer in the place of the server's."""

    def __init__(self, status: int, code: str) -> None:
        self.status, self.reason = status, code
        self._body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode()
        self.length = len(self._body)

    def getheaders(self) -> list[tuple[str, str]]:
        return [("Content-Type", "application/xml"), ("Content-Length", str(self.length))]

    def read(self, size: int) -> bytes:
        piece, self._body = self._body[:size], self._body[size:]
        self.length -= len(piece)
        return piece


class _Signature(S3SigV4Auth):  # type: ignore[misc]
    """Signs a request whose body has been read already."""

    def __init__(self, payload: str, *args: Any) -> None:
        super().__init__(*args)
        self._payload = payload

    def payload(self, request: Any) -> str:
        return self._payload


def _signed(authorization: str) -> list[str]:
    return authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")

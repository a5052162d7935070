"""Endpoints: posts webhooks to wherever they may go, and says how each was answered. Thread-safe.

No redirect is followed, as the specification says: its target has not been checked, and would get the body as well. No
connection is kept, and no body of an answer is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Final

from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError

from blobferry.redaction import cleaned
from worker.errors import BlobferryError
from worker.settings import WebhooksSettings
from worker.stores.retry_after import retry_after
from worker.transfer.sources.http.addresses import connection_pools
from worker.transfer.sources.http.http_client import hide_queries
from worker.transfer.sources.http.refused_addresses import RefusedAddresses
from worker.transfer.sources.http.request_target import RequestTarget

_GONE: Final = 410
_ASK_TO_WAIT: Final = frozenset({429, 503})
_MAX_REASON: Final = 500  #: characters of what is noted of a failure


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """How a try has ended."""

    status: int | None = None  #: None: without an answer
    problem: str = ""  #: "" if it has arrived
    wait: float = 0.0  #: seconds that the endpoint asks to be left alone

    @property
    def is_gone(self) -> bool:
        """Whether the endpoint wants no more of this job."""
        return self.status == _GONE


class Endpoints:
    """Posts to the endpoints that the settings allow."""

    def __init__(self, settings: WebhooksSettings) -> None:
        """Raises ConfigurationError for a ``ca_file`` that is missing or holds no certificate."""
        refused = RefusedAddresses(settings.refuse, frozenset(settings.refuse_ports), prefix="webhooks.")
        self._pools = connection_pools(allow_private=settings.allow_private, ca_file=settings.ca_file, refused=refused)
        self._timeout = Timeout(connect=settings.connect_seconds, read=settings.read_seconds)
        self._allows_http = settings.allow_http
        hide_queries()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> PostAnswer:
        """Post the body. Never raises: what keeps it from arriving is the answer's problem, without secrets."""
        try:
            target = RequestTarget.parse(url)
            if target.scheme != "https" and not self._allows_http:
                return PostAnswer(problem="is no https: URL (webhooks.allow_http would allow it)")
            response = self._send(target, body, headers)
            try:
                return _answer(response)
            finally:
                response.close()
        except (BlobferryError, HTTPError, HTTPException, OSError) as error:
            return PostAnswer(problem=cleaned(str(error) or type(error).__name__, _MAX_REASON))

    def _send(self, target: RequestTarget, body: bytes, headers: Mapping[str, str]) -> BaseHTTPResponse:
        credentials = {"Authorization": target.authorization} if target.authorization else {}
        return self._pools.connection_from_host(target.host, target.port, target.scheme).urlopen(
            "POST",
            target.request,
            body=body,
            headers={**headers, **credentials, "Connection": "close"},
            retries=False,
            redirect=False,
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )


def _answer(response: BaseHTTPResponse) -> PostAnswer:
    status = response.status
    if 200 <= status < 300:
        return PostAnswer(status)
    problem = cleaned(f"answers {status} {response.reason or ''}".rstrip(), _MAX_REASON)
    if 300 <= status < 400:
        problem += ", a redirect, which is not followed"
    wait = retry_after(response.headers) if status in _ASK_TO_WAIT else None
    return PostAnswer(status, problem, wait or 0.0)

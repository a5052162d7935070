"""What is to go wrong with which S3 call, and what did: the rules of the fault proxy, without its sockets."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from dev.waiting import wait_until

IDLE_SECONDS = 120.0  #: that all requests in hand may take to end
#: Headers of one connection, which a proxy does not pass on. Source: RFC 9110, 7.6.1.
HOP_BY_HOP: Final = {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}

Kind = Literal[
    "internal_error",  # 500
    "slow_down",  # 503
    "access_denied",  # 403
    "error_in_200",  # a status that says yes and a body that says no; of a delete_batch: of each of its keys
    "hang_up",  # the connection ends without an answer
    "cut_request",  # the connection ends in the middle of the request's body
    "cut_answer",  # the connection ends in the middle of the answer's body; the server has done its work
    "stall",  # silence for ``stall_seconds``, then the connection ends
    "late",  # like "stall", but the server does its work after all, and the client never learns of it
]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as S3 names it."""

    operation: str
    bucket: str
    key: str  #: of a listing: its prefix


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with some of the calls of one operation."""

    operation: str  #: "" is any
    kind: Kind
    times: int | None = 1  #: None: always
    after: int = 0  #: calls that pass before it
    effect: bool = False  #: the server does its work first, and its answer is thrown away


@dataclass(slots=True)
class Exchange:
    """A request and, as it goes on, what becomes of it."""

    call: Call
    fault: Fault | None
    sent: int  #: bytes of the request's body, as its head promised
    answered: int = 0  #: bytes of the answer's body that went out
    status: int = 0  #: 0: no answer went out


Choose = Callable[[Call], Fault | None]


def recognise(method: str, target: str, *, copies: bool) -> Call:
    """Which operation a path-style request is; ``copies``: it names a source to copy."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    part, upload = "partNumber" in query, "uploadId" in query
    operation = f"{method.lower()}_bucket"
    match method:
        case "PUT" if key:
            operation = "copy_part" if part and copies else "upload_part" if part else "copy" if copies else "put"
        case "GET" if key:
            operation = "list_parts" if upload else "get"
        case "GET":
            operation = "list_uploads" if "uploads" in query else "list" if "list-type" in query else operation
            key = query.get("prefix", [""])[0]
        case "POST" if key:
            operation = "create_upload" if "uploads" in query else "complete_upload"
        case "POST" if "delete" in query:
            operation = "delete_batch"
        case "DELETE" if key:
            operation = "abort_upload" if upload else "delete"
        case "HEAD" if key:
            operation = "head"
    return Call(f"{method.lower()}_tags" if "tagging" in query else operation, bucket, key)


class FaultRules:
    """Faults that apply to the requests that begin after they were set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._choose: Choose = lambda call: None
        self._exchanges: list[Exchange] = []
        self._in_flight = 0

    def inject(self, *faults: Fault) -> None:
        """Inject these from now on, instead of any others; the first that applies to a call wins. None: all is well."""
        seen: Counter[Fault] = Counter()

        def choose(call: Call) -> Fault | None:
            found = None
            for fault in faults:
                if fault.operation in ("", call.operation):
                    passed, seen[fault] = seen[fault], seen[fault] + 1
                    if found is None and passed >= fault.after and passed - fault.after < (fault.times or passed + 1):
                        found = fault
            return found

        self._set(choose)

    def inject_at_random(self, seed: int, rate: float, faults: Sequence[Fault]) -> None:
        """From now on, give every call one of the faults that fit it, with the probability ``rate``."""
        chance = random.Random(seed)

        def choose(call: Call) -> Fault | None:
            fitting = [fault for fault in faults if fault.operation in ("", call.operation)]
            return chance.choice(fitting) if chance.random() < rate and fitting else None

        self._set(choose)

    def exchanges(self) -> list[Exchange]:
        """What it has seen since the faults were last set, in the order of the beginnings."""
        with self._lock:
            return list(self._exchanges)

    def injected(self) -> Counter[tuple[str, Kind]]:
        """How many faults hit which operation since they were last set."""
        return Counter((seen.call.operation, seen.fault.kind) for seen in self.exchanges() if seen.fault)

    def wait_until_idle(self) -> None:
        """Wait for the end of all that is going on here: what was late has then happened. Raises TimeoutError."""
        wait_until(lambda: not self._in_flight, IDLE_SECONDS, "the fault proxy is idle")

    def _set(self, choose: Choose) -> None:
        with self._lock:
            self._choose = choose
            self._exchanges = []

    def begin(self, call: Call, sent: int) -> Exchange:
        """A request is here: the fault that it is to have, and where to write down what becomes of it."""
        with self._lock:
            self._in_flight += 1
            exchange = Exchange(call, self._choose(call), sent)
            self._exchanges.append(exchange)
            return exchange

    def end(self) -> None:
        """One of them is over."""
        with self._lock:
            self._in_flight -= 1

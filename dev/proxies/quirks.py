"""What makes other stores than S3 other: one rule each for a :mod:`dev.proxies.quirk_proxy`."""

import re
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

from dev.proxies.quirk_proxy import Ask, QuirkyAnswer, QuirkyRequest, Rule, refuse

COMMITS: Final = ("put", "copy", "complete_upload")
CONDITIONAL: Final = (*COMMITS, "delete")


def without_conditions(status: int, code: str, *operations: str) -> Rule:
    """Refuses a request that carries a condition, by default any that changes what readers see."""

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        names = {"if-match", "if-none-match"} & request.headers.keys()
        return refuse(status, code) if names and request.operation in (operations or CONDITIONAL) else ask(request)

    return rule


def ignoring_conditions(*operations: str) -> Rule:
    """Takes a request as if it carried no condition."""

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        if request.operation in (operations or CONDITIONAL):
            for name in ("if-match", "if-none-match"):
                request.headers.pop(name, None)
        return ask(request)

    return rule


def comparing_without_quotes(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
    """Shows ETags in quotes, and compares them with what a condition says as it stands there."""
    if request.operation in CONDITIONAL and '"' in request.headers.get("if-match", ""):
        return refuse(412, "PreconditionFailed")
    return ask(request)


def without_headers(status: int, code: str, *prefixes: str) -> Rule:
    """Refuses a request with a header that begins so; without a code the answer has no body."""

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        if any(name.startswith(prefixes) for name in request.headers):
            return refuse(status, code) if code else QuirkyAnswer(status)
        return ask(request)

    return rule


def without_operations(status: int, code: str, *operations: str) -> Rule:
    """Does not know these requests."""

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        return refuse(status, code) if request.operation in operations else ask(request)

    return rule


def checking_parts(*, equal: bool = False, most: int = 10_000) -> Rule:
    """Wants all parts but the last to have one size, and the last not to be larger; or takes only so many."""
    sizes: dict[str, dict[int, int]] = defaultdict(dict)

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        upload = request.query.get("uploadId", [""])[0]
        if request.operation in ("upload_part", "copy_part"):
            number = int(request.query["partNumber"][0])
            if number > most:
                return refuse(400, "InvalidArgument", f"part number must be within 1 and {most}")
            sizes[upload][number] = _part_size(request)
        if request.operation == "complete_upload" and equal:
            named = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
            found = [sizes[upload].get(number, -1) for number in named]
            if len(set(found[:-1])) > 1 or (len(found) > 1 and found[-1] > found[0]):
                return refuse(400, "InvalidPart", "All non-trailing parts must have the same length.")
        return ask(request)

    return rule


def _part_size(request: QuirkyRequest) -> int:
    if copied := request.headers.get("x-amz-copy-source-range"):
        first, _, last = copied.removeprefix("bytes=").partition("-")
        return int(last) - int(first) + 1
    return len(request.body)


def changing_etags(change: Callable[[str], str], back: Callable[[str], str]) -> Rule:
    """Shows other ETags than the server, and takes them back in conditions and lists of parts."""
    etags = re.compile(rb"<ETag>(.*?)</ETag>")

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        for name in ("if-match", "x-amz-copy-source-if-match"):
            if name in request.headers:
                request.headers[name] = back(request.headers[name])
        request.body = _replaced(etags, request.body, back) if request.operation == "complete_upload" else request.body
        answer = ask(request)
        if "etag" in answer.headers:
            answer.headers["etag"] = change(answer.headers["etag"])
        if request.operation != "get":
            answer.body = _replaced(etags, answer.body, change)
        return answer

    return rule


def _replaced(etags: re.Pattern[bytes], body: bytes, change: Callable[[str], str]) -> bytes:
    def changed(match: re.Match[bytes]) -> bytes:
        etag = match[1].decode().replace("&quot;", '"').replace("&#34;", '"')
        return b"<ETag>" + change(etag).replace('"', "&quot;").encode() + b"</ETag>"

    return etags.sub(changed, body)


def reversed_etag(etag: str) -> str:
    """An ETag that is no MD5; reversed again, it is the first one."""
    return f'"{etag.strip(chr(34))[::-1]}"'


def listing_without(*fields: str) -> Rule:
    """Leaves fields out of listings."""

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        answer = ask(request)
        if request.operation in ("list", "list_uploads", "list_parts"):
            for name in fields:
                answer.body = re.sub(rf"<{name}>.*?</{name}>".encode(), b"", answer.body, flags=re.DOTALL)
        return answer

    return rule


def forgetful_copies(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
    """A copy in one request loses all metadata."""
    if request.operation == "copy":
        for name in [name for name in request.headers if name.startswith("x-amz-meta-")]:
            del request.headers[name]
        request.headers["x-amz-metadata-directive"] = "REPLACE"
    return ask(request)


def once_each(answer: Callable[[], QuirkyAnswer], *operations: str) -> Rule:
    """Answers the first request of each key and operation so, and does nothing."""
    seen = set[tuple[str, str]]()

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        call = (request.operation, request.path)
        if request.operation not in operations or call in seen:
            return ask(request)
        seen.add(call)
        return answer()

    return rule


def every(count: int, answer: Callable[[], QuirkyAnswer]) -> Rule:
    """Answers each so-many-th request so."""
    number = 0

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        nonlocal number
        number += 1
        return ask(request) if number % count else answer()

    return rule


def in_region(region: str, status: int, code: str) -> Rule:
    """Redirects requests that were signed for another region."""

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        if f"/{region}/" in request.headers.get("authorization", f"/{region}/"):
            return ask(request)
        answer = refuse(status, code)
        answer.headers["x-amz-bucket-region"] = region
        return answer

    return rule


def dated(ahead: timedelta) -> Rule:
    """Its clock is wrong."""
    stamps = re.compile(rb"<(LastModified|Initiated)>(.*?)</\1>")

    def later(match: re.Match[bytes]) -> bytes:
        moment = datetime.fromisoformat(match[2].decode()) + ahead
        return b"<%b>%b</%b>" % (match[1], moment.isoformat().replace("+00:00", "Z").encode(), match[1])

    def rule(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
        answer = ask(request)
        for name in ("date", "last-modified"):
            if name in answer.headers:
                moment = parsedate_to_datetime(answer.headers[name]) + ahead
                answer.headers[name] = format_datetime(moment, usegmt=True)
        if request.operation != "get":
            answer.body = stamps.sub(later, answer.body)
        return answer

    return rule


def chunked_as_content(request: QuirkyRequest, ask: Ask) -> QuirkyAnswer:
    """Stores the frames of an aws-chunked body as content: who sends one gets another blob."""
    if "aws-chunked" in request.headers.get("content-encoding", ""):
        request.headers.pop("content-encoding")
        request.headers.pop("x-amz-decoded-content-length", None)
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    return ask(request)

"""What anybody gets for a signed URL, without a client of S3."""

import urllib.error
import urllib.request
from email.message import Message
from http import HTTPStatus

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy is to be asked for 127.0.0.1
_TRIES = 4


def fetch(url: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers, their names in lower case; a busy store of the zoo is asked again."""
    for _ in range(_TRIES - 1):
        answer = _fetched(url, method)
        if answer[0] != HTTPStatus.TOO_MANY_REQUESTS:
            return answer
    return _fetched(url, method)


def _fetched(url: str, method: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with _OPENER.open(urllib.request.Request(url, method=method), timeout=30) as answer:
            return answer.status, answer.read(), _lowered(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), _lowered(error.headers)


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}

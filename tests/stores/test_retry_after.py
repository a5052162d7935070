"""Retry-After: seconds or a date, in any shape that servers send."""

import pytest
from urllib3 import HTTPHeaderDict

from worker.stores.retry_after import MAX_WAIT, request_to_wait, retry_after

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999999", MAX_WAIT),
        ("9" * 400, MAX_WAIT),
        ("Wed, 21 Oct 2026 07:30:00 GMT", 120.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", MAX_WAIT),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Wed, 21 Oct 2026 07:30:00 -0000", None),
        (None, None),
    ],
)
def test_what_an_answer_asks_for(value: str | None, seconds: float | None) -> None:
    headers = {"date": DATE} | ({} if value is None else {"retry-after": value})
    assert retry_after(headers) == seconds
    assert retry_after(HTTPHeaderDict({name.title(): text for name, text in headers.items()})) == seconds


def test_without_a_date_of_the_server_the_clock_here_counts() -> None:
    assert retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) == MAX_WAIT
    assert retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT", "date": "nonsense"}) == MAX_WAIT


def test_the_message_says_so() -> None:
    assert request_to_wait(7.2) == "; it asks to wait 8 s (Retry-After)"
    assert request_to_wait(None) == ""

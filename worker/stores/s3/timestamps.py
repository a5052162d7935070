"""Reads the two spellings of a time that stores send; botocore's own parser, dateutil, takes forty times as long."""

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore.utils import parse_timestamp

_HTTP_DATE: Final = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", re.ASCII)
_ISO_8601: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)


def timestamp(value: Any) -> datetime:
    """The time, aware. Any other spelling, and what is no time at all, is left to botocore's parser."""
    if isinstance(value, str):
        try:
            if _HTTP_DATE.fullmatch(value):
                return parsedate_to_datetime(value)
            if _ISO_8601.fullmatch(value):
                return datetime.fromisoformat(value)
        except ValueError:
            pass
    found: datetime = parse_timestamp(value)
    return found

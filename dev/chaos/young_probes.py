"""What a killed probe may leave in a store for an hour: docs/guarantees.md, "What a probe leaves"."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

KEPT: Final = timedelta(hours=1)
_KEY: Final = re.compile(r"\.blobferry-probe/(\d{8}T\d{6}Z)-[0-9a-f]{32}")


def is_young_probe(key: str, now: datetime) -> bool:
    """Whether the key, in a bucket without a root directory, is a probe's that began less than an hour ago."""
    found = _KEY.fullmatch(key)
    if found is None:
        return False
    return now - datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) < KEPT

"""Times as stores spell them: read quickly in the usual spellings, and as botocore reads them in any other."""

import pytest
from botocore.utils import parse_timestamp

from worker.stores.s3.timestamps import timestamp


@pytest.mark.parametrize(
    "spelling",
    [
        "Sun, 29 Nov 2026 10:20:30 GMT",
        "Thu, 29 Feb 2024 23:59:59 GMT",
        "2026-11-29T10:20:30Z",
        "2026-11-29T10:20:30.000Z",
        "2026-11-29T10:20:30.123456Z",
        "2026-11-29T10:20:30+02:00",
        "Sun, 29 Nov 2026 10:20:30 +0200",
        "Sunday, 29-Nov-26 10:20:30 GMT",
        "29 Nov 2026 10:20:30 GMT",
        "1795947630",
        1795947630,
    ],
)
def test_a_time_is_the_one_that_botocore_reads(spelling: str | int) -> None:
    found, expected = timestamp(spelling), parse_timestamp(spelling)
    assert (found, found.utcoffset()) == (expected, expected.utcoffset())


@pytest.mark.parametrize("spelling", ["", "soon", "Sun, 31 Feb 2026 10:20:30 GMT", "2026-13-29T10:20:30Z"])
def test_what_is_no_time_is_refused_as_botocore_does_it(spelling: str) -> None:
    with pytest.raises(Exception, match=r".") as expected:
        parse_timestamp(spelling)
    with pytest.raises(type(expected.value)):
        timestamp(spelling)

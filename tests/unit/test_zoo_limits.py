"""The table of what the stores of the zoo cannot do names profiles and tests that there are."""

import re
from pathlib import Path

import pytest

from dev.zoo import PROFILES
from dev.zoo_suites import counted
from tests.zoo_limits import LIMITS, Limit, limit_of

TESTS = Path(__file__).resolve().parents[1]
NAMED = {
    name
    for folder in ("driver", "stores")
    for path in (TESTS / folder).glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.reason)
def test_a_limit_names_profiles_and_tests_that_there_are(limit: Limit) -> None:
    assert set(limit.profiles) <= PROFILES.keys()
    assert {test.partition("[")[0] for test in limit.tests} <= NAMED


def test_a_case_is_listed_for_its_profile_only_and_by_its_whole_name() -> None:
    late = "test_without_overwrite_a_blob_that_appears_at_the_last_moment_stays"
    assert limit_of("ignoring", f"{late}[put-10-moto-reader]") is not None
    assert limit_of("put only", f"{late}[complete_upload-3072-moto-reader]") is not None
    assert limit_of("put only", f"{late}[put-10-moto-reader]") is None
    assert limit_of("old gateway", f"{late}[put-10-moto-reader]") is None
    assert limit_of("ignoring", f"{late}_too") is None
    assert limit_of("", f"{late}[put-10-moto-reader]") is None


def test_the_last_line_of_pytest_is_counted() -> None:
    summary = "7 failed, 369 passed, 12 xfailed, 1 error in 138.07s (0:02:18)"
    assert [counted(summary, word) for word in ("passed", "xfailed", "failed", "errors?")] == [369, 12, 7, 1]
    assert counted("3 xpassed in 1.0s", "passed") == 0

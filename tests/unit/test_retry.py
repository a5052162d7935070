"""The retry decision: what follows an error, and when."""

import pytest

from worker.errors import (
    CredentialsError,
    PermissionDeniedError,
    SlowDownError,
    SourceChangedError,
    StoreUnavailableError,
    SupersededError,
    UnexpectedError,
)
from worker.jobs.retry import GiveUp, RetryIn, decide
from worker.settings import RetrySettings

SETTINGS = RetrySettings(max_attempts=4, base_seconds=2, max_seconds=10)


@pytest.mark.parametrize("error", [PermissionDeniedError, SourceChangedError, SupersededError])
@pytest.mark.parametrize("progressed", [False, True])
def test_a_permanent_error_ends_the_job_with_nothing_to_go_on_with(error: type[Exception], progressed: bool) -> None:
    assert decide(error("x"), failures=0, progressed=progressed, settings=SETTINGS) == GiveUp(resumable=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [StoreUnavailableError, SlowDownError, CredentialsError, UnexpectedError])
def test_a_transient_error_is_tried_again_until_the_attempts_are_over(error: type[Exception]) -> None:
    for failures in range(3):
        decision = decide(error("x"), failures=failures, progressed=False, settings=SETTINGS)  # type: ignore[arg-type]
        assert isinstance(decision, RetryIn)
        assert decision.failures == failures + 1
    assert decide(error("x"), failures=3, progressed=False, settings=SETTINGS) == GiveUp(resumable=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(None, 0, 2), (0.0, 0, 2), (3600, 3600, 3600), (1e9, 86400, 86400)]
)
def test_a_server_that_asks_to_wait_is_left_alone_so_long_but_at_most_a_day(
    asked: float | None, least: float, most: float
) -> None:
    error = StoreUnavailableError("x")
    error.retry_after = asked
    decision = decide(error, failures=0, progressed=False, settings=SETTINGS)
    assert isinstance(decision, RetryIn)
    assert least <= decision.delay <= most


def test_an_error_that_another_source_may_mend_keeps_the_upload() -> None:
    error = SourceChangedError("x")
    error.resumable = True
    assert decide(error, failures=0, progressed=False, settings=SETTINGS) == GiveUp(resumable=True)


def test_progress_starts_counting_and_backoff_anew() -> None:
    decision = decide(StoreUnavailableError("x"), failures=3, progressed=True, settings=SETTINGS)
    assert isinstance(decision, RetryIn)
    assert decision.failures == 1
    assert decision.delay <= 2


def test_the_backoff_doubles_has_jitter_and_an_end() -> None:
    settings = RetrySettings(max_attempts=100, base_seconds=2, max_seconds=10)
    for failures, most in ((0, 2), (1, 4), (2, 8), (3, 10), (50, 10)):
        delays = set()
        for _ in range(300):
            decision = decide(StoreUnavailableError("x"), failures=failures, progressed=False, settings=settings)
            assert isinstance(decision, RetryIn)
            delays.add(decision.delay)
        assert 0 <= min(delays) < max(delays) <= most
        assert max(delays) > most * 0.6


def test_what_only_this_worker_may_lack_is_tried_once_on_each_of_the_others() -> None:
    possible, certain = PermissionDeniedError("x"), PermissionDeniedError("x")
    certain.transient = True
    for error in (possible, certain):
        for failures in range(5):
            assert isinstance(decide(error, failures=failures, progressed=False, settings=SETTINGS, others=2), RetryIn)
    assert decide(possible, failures=5, progressed=False, settings=SETTINGS, others=2) == GiveUp(resumable=False)
    assert decide(certain, failures=5, progressed=False, settings=SETTINGS, others=2) == GiveUp(resumable=True)
    assert decide(possible, failures=0, progressed=False, settings=SETTINGS, others=0) == GiveUp(resumable=False)
    assert isinstance(decide(certain, failures=0, progressed=False, settings=SETTINGS, others=0), RetryIn)

"""A result backend that is away makes no failure of a task."""

import pytest
from celery import Celery, states

from dev.services import valkey
from worker.celery.result_backend import App


def app_of(kind: type[Celery], url: str) -> Celery:
    app = kind("test", broker=url, backend=url, set_as_current=False)
    app.conf.update(result_backend_always_retry=True, result_backend_max_retries=1, redis_socket_connect_timeout=1)
    app.conf.update(result_backend_max_sleep_between_retries_ms=10)
    return app


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's
def test_the_end_of_a_run_that_cannot_be_stored_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with valkey() as broker:
        app = app_of(App, broker.url)
        broker.kill9()
        for tell in (app.backend.mark_as_done, app.backend.mark_as_retry, app.backend.mark_as_failure):
            tell("job-1", ValueError("x"))
        app.backend.mark_as_revoked("job-1", "cancelled")
        told = [record for record in caplog.records if record.getMessage() == "result not stored"]
        assert len(told) == 4
        with pytest.raises(Exception, match=r"refused|store"):
            app_of(Celery, broker.url).backend.mark_as_done("job-1", "what Celery does by itself")
        broker.restart()
        app.backend.mark_as_done("job-1", "done")
        assert app.backend.get_state("job-1") == states.SUCCESS
        app.close()


def test_an_error_that_is_no_absence_is_raised() -> None:
    with valkey() as broker:
        app = app_of(App, broker.url)
        with pytest.raises(Exception, match=r"serializable|encode"):
            app.backend.mark_as_done("job-1", object())
        app.close()

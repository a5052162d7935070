"""A running stack, observed from outside: its rows, its blobs, its jobs."""

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError
from sqlalchemy import create_engine, text

from blobferry import Client, Job
from blobferry.sql.database_url import parse_url
from dev.waiting import wait_until


class Rows:
    """The tables, looked at from outside."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(parse_url(url))

    def select(self, statement: str, **values: Any) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text(statement), values).mappings())

    def execute(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), values)

    def close(self) -> None:
        self._engine.dispose()


def head(s3: Any, bucket: str, key: str) -> Mapping[str, Any] | None:
    """What readers see of a blob; None for nothing."""
    try:
        found: Mapping[str, Any] = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return None
    return found


def wait_for(client: Client, job_id: str, condition: Callable[[Job], Any], timeout: float = 60) -> Job:
    """The job once the condition holds."""

    def probe() -> Job | None:
        job = client.get(job_id)
        return job if condition(job) else None

    try:
        found = wait_until(probe, timeout, f"condition of job {job_id}", longest_pause=0.005)
    except TimeoutError as error:
        raise AssertionError(client.get(job_id)) from error
    assert found is not None
    return found

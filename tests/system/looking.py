"""Looking at a running stack from outside."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError
from sqlalchemy import create_engine, text

from blobferry import Client, Job
from blobferry.sql.database import parse_url


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
    deadline = time.monotonic() + timeout
    while not condition(job := client.get(job_id)):
        assert time.monotonic() < deadline, job
        time.sleep(0.005)
    return job

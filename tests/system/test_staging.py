"""Uploads for hosts that share no directory: they reach the store first, and a job moves them (docs/uploads.md)."""

import os
import re
import urllib.request
from io import BytesIO
from types import SimpleNamespace

import boto3
import pytest
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from dev.stack import BUCKET, CHECKOUT, Stack
from tests.system.recorded_stack import Scene, recorded

MIB = 1024 * 1024


def moved(scene: Scene, contents: bytes) -> None:
    """The one job succeeds; its blob is the upload, and nothing is left in the staging directory."""
    (job,) = scene.client.jobs()
    assert scene.client.wait(job.id, timeout=60).state == "succeeded"
    # Not by boto3: moto gives a copy the checksum of its parts, which boto3 takes for that of the whole.
    assert answer_to(urllib.request.Request(scene.client.url_for(str(job.path)))) == contents
    assert not any(path.startswith("/staging") for path in scene.client.list("/", recursive=True))


def answer_to(request: urllib.request.Request) -> bytes:
    """The body of a 2xx."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return bytes(answer.read())


def test_what_a_browser_puts_below_a_staging_prefix_is_moved_by_a_job(stack: Stack) -> None:
    with recorded(stack, delays={}, settings={"BLOBFERRY_READS": "4"}) as scene, scene.stack.worker():
        url = scene.client.url_for("/staging/7", {"method": "PUT", "content-type": "video/mp4"})
        request = urllib.request.Request(url, b"bytes of a film", dict(url.headers), method="PUT")
        answer_to(request)
        scene.client.move("/staging/7", "/videos/7.mp4")
        moved(scene, b"bytes of a film")
        assert scene.s3.head_object(Bucket=BUCKET, Key="videos/7.mp4")["ContentType"] == "video/mp4"


@pytest.mark.long
def test_what_the_app_uploads_in_parts_is_moved_as_the_page_shows(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (CHECKOUT / "docs" / "uploads.md").read_text(encoding="utf-8")
    (snippet,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "upload_fileobj" in block]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stack.s3.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stack.s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stack.s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", stack.s3.region)
    film = os.urandom(20 * MIB)
    with recorded(stack, delays={}, settings={"BLOBFERRY_READS": "4"}) as scene, scene.stack.worker():
        names = {
            "boto3": boto3,
            "Session": SessionWithoutRows,
            "engine": create_engine(stack.database_url, poolclass=NullPool),
            "video": SimpleNamespace(),
            "ferry": scene.client,
            "request_file": BytesIO(film),
            "upload_id": 7,
        }
        exec(snippet.replace("my-videos", BUCKET), names)
        moved(scene, film)


class SessionWithoutRows(Session):
    """Of an app whose rows are of no interest here."""

    def add(self, instance: object, _warn: bool = True) -> None:
        pass

"""A real worker's caretaker removes what a killed probe has left in the bucket."""

import pytest

from dev.stack import BUCKET, Stack
from dev.waiting import wait_until
from worker.maintenance.sweep_probes import FIRST

LEFT = ".blobferry-probe/20200101T000000Z-0123456789abcdef0123456789abcdef"


@pytest.mark.long
def test_a_worker_removes_what_a_killed_probe_has_left(stack: Stack) -> None:
    client = stack.s3.client()
    client.put_object(Bucket=BUCKET, Key=LEFT, Body=b"left")
    client.create_multipart_upload(Bucket=BUCKET, Key=LEFT)

    def is_gone() -> bool:
        blobs = client.list_objects_v2(Bucket=BUCKET, Prefix=".blobferry-probe/")["KeyCount"]
        uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=".blobferry-probe/").get("Uploads", [])
        return not blobs and not uploads

    assert not is_gone()
    with stack.worker():
        wait_until(is_gone, FIRST + 60, "the caretaker's first round")
    client.close()

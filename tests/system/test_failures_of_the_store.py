"""A store that hangs in the middle of a sentence: no slot waits for it for ever.

The table of all failures and their tests is in test_failures_of_workers.
"""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from dev.proxies.tcp import wire
from dev.stack import Stack
from tests.system.recorded_stack import LONG_LEASE, recorded


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["half-open", "partition"])
def test_a_hung_s3_socket_does_not_block_its_slot_for_ever(stack: Stack, how: str) -> None:
    with recorded(stack, settings=LONG_LEASE) as scene:
        url = urlsplit(scene.requests.endpoint)
        with wire((str(url.hostname), url.port or 80)) as through:
            behind = replace(scene.stack, endpoint=f"http://127.0.0.1:{through.port}")
            with behind.worker():
                job = scene.begin("/hung/blob", 24)
                (through.freeze_existing if how == "half-open" else through.freeze)()
                if how == "partition":
                    scene.until(job, lambda job: job.state == "retrying" or job.attempt > 1, timeout=400)
                    through.thaw()
                scene.succeeded(job, timeout=400)
                through.thaw()
                scene.succeeded(scene.submit("/hung/after", 1))

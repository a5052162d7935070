"""The engine of Blobferry in a plain process, its checkpoint in memory: what a job costs without being a job.

``engine_alone.py '{"files": […], "warm": […], "prefix": "/x/"}'``. Prints wall and CPU seconds, as JSON.
"""

import json
import os
import sys
import time
from contextlib import closing

from worker.runtime import Runtime
from worker.settings import load_settings


def main():
    """Warm up, write the files, report."""
    what = json.loads(sys.argv[1])
    runtime = Runtime(load_settings())
    runtime.warm_up()
    driver = runtime.driver("default")

    def write(number, file):
        with closing(runtime.open_source(f"file://{file}")) as source:
            driver.write_stream(f"{what['prefix']}{number}", 0, source)

    for number, file in enumerate(what["warm"]):
        write(f"warm{number}", file)
    started, before = time.monotonic(), os.times()
    for number, file in enumerate(what["files"]):
        write(number, file)
    after = os.times()
    cpu = after.user + after.system - before.user - before.system
    print(json.dumps({"wall": time.monotonic() - started, "cpu": cpu}))
    runtime.close()


if __name__ == "__main__":
    main()

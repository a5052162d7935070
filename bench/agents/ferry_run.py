"""Submits jobs one after the other and waits for each: ``ferry_run.py '{"operation": …, "jobs": [{…}], "pause": 0}'``.

Prints the seconds from each submit to the moment at which ``wait`` returned, as JSON. Against the code of any checkout.
"""

import json
import sys
import time

from blobferry import Client


def main():
    """Submit and wait."""
    what = json.loads(sys.argv[1])
    contents = bytes(range(256)) * (what.get("size", 0) // 256)
    walls = []
    with Client.from_env() as ferry:
        method = getattr(ferry, what["operation"])
        for arguments in what["jobs"]:
            if what["operation"] == "put_content":
                arguments["contents"] = contents
            time.sleep(what.get("pause", 0))
            started = time.monotonic()
            job = ferry.wait(method(**arguments).id, timeout=1800)
            walls.append(time.monotonic() - started)
            if job.state != "succeeded":
                sys.exit(f"{job.id} {job.state}: {job.error_code}: {job.error_message}")
    print(json.dumps({"walls": walls}))


if __name__ == "__main__":
    main()

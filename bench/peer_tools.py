"""The peers that move files: libraries in a running process, and programs that are started for it."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.measurement import Measurement
from bench.stage import AGENTS, BUCKET, Stage
from bench.tracked_process import run_tracked
from dev.process import FOREIGN_VARIABLES, LOG_TAIL_LINES, ServiceError

#: By the name of the environment that they are in.
LIBRARIES: Final = {"boto3": "celery", "crt": "crt", "obstore": "obstore"}


def run_library(stage: Stage, library: str, *, secure: bool = False, units: float, **what: Any) -> Measurement:
    """Let a library do it. See ``agents/library_transfer.py``. Raises MissingPeerError."""
    python = stage.peers.program(LIBRARIES[library], "python")
    what = {
        "library": library,
        "endpoint": stage.sink.secure_endpoint if secure else stage.store.endpoint,
        "ca": str(stage.sink.authority) if secure else "",
        "bucket": BUCKET,
        "access_key": stage.store.access_key,
        "secret_key": stage.store.secret_key,
        "threads": 1,
        "warm": [],
        **what,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
    done = subprocess.run(
        [str(python), str(AGENTS / "library_transfer.py"), json.dumps(what)],
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"{library} failed\n" + "\n".join(done.stderr.splitlines()[-LOG_TAIL_LINES:]))
    took = json.loads(done.stdout.splitlines()[-1])
    return Measurement(units, took["wall"], took["cpu"], took["memory"])


def run_program(
    stage: Stage, program: str, arguments: Sequence[str], *, secure: bool = False, units: float
) -> Measurement:
    """Run awscli, s5cmd or rclone to its end. Raises MissingPeerError."""
    endpoint = stage.sink.secure_endpoint if secure else stage.store.endpoint
    command: list[str | Path] = [stage.peers.program(program)]
    environment = {
        "AWS_ACCESS_KEY_ID": stage.store.access_key,
        "AWS_SECRET_ACCESS_KEY": stage.store.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        **({"AWS_CA_BUNDLE": str(stage.sink.authority), "SSL_CERT_FILE": str(stage.sink.authority)} if secure else {}),
    }
    if program == "awscli":
        config = stage.directory / "aws.config"
        config.write_text("[default]\ns3 =\n  addressing_style = path\n")
        environment["AWS_CONFIG_FILE"] = str(config)
        command += ["--endpoint-url", endpoint, "s3", *arguments]
    elif program == "s5cmd":
        command += ["--endpoint-url", endpoint, *arguments]
    else:
        config = stage.directory / "rclone.config"
        config.write_text(
            f"[bench]\ntype = s3\nprovider = Other\nendpoint = {endpoint}\nregion = us-east-1\nenv_auth = true\n"
            "force_path_style = true\nno_check_bucket = true\n"
        )
        command += ["--config", config, *arguments]
    used = run_tracked(program, command, directory=stage.directory, environment=environment)
    return Measurement(units, used.wall, used.cpu, used.memory)

"""The command, as a shell runs it: what it prints where, and how it exits."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from blobferry import Client
from dev.services import Valkey, free_port, moto
from dev.stack import Stack
from tests.client.conftest import CHECKOUT, MIB, SOURCE, Site

pytestmark = pytest.mark.no_cover

COMMAND = [sys.executable, "-W", "error", "-m", "blobferry"]


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")}
    return kept | {"PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color", "TZ": "Asia/Tokyo"} | dict(variables)


def start(variables: Mapping[str, str], *words: str, **options: Any) -> "subprocess.Popen[str]":
    """The command in a process of its own, whose output is text in pipes unless the options say otherwise."""
    means: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*COMMAND, *words], env=environment_with(variables), text=True, **means)


def run(variables: Mapping[str, str], *words: str, directory: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    environment = environment_with(variables)
    return subprocess.run(
        [*COMMAND, *words], env=environment, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


def run_on_a_terminal(
    variables: Mapping[str, str], *words: str, meanwhile: Callable[[str], None] = lambda screen: None
) -> tuple[int, str]:
    """Exit status and all that appeared on a terminal of 100 columns, without colours and cursor movements."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = start(variables, *words, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    seen = b""
    ends_at = time.monotonic() + 90
    with process, open(terminal, "rb", buffering=0) as screen:
        while time.monotonic() < ends_at:
            ready, _, _ = select.select([screen], [], [], 0.1)
            try:
                chunk = screen.read(65536) if ready else None
            except OSError:  # Linux says so at the end
                break
            if chunk == b"":
                break
            seen += chunk or b""
            meanwhile(seen.decode(errors="replace"))
        else:
            process.kill()
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))


@pytest.fixture
def variables(sqlite_site: Site) -> dict[str, str]:
    return sqlite_site.environment()


# --- write ---------------------------------------------------------------------------------------------------------


def test_write_prints_the_id_and_how_to_watch(variables: dict[str, str], client: Client, tmp_path: Path) -> None:
    (tmp_path / "a b#.bin").write_bytes(b"blob")
    done = run(variables, "write", "a b#.bin", "/x/y.bin", directory=tmp_path)
    job = client.get(done.stdout.removesuffix("\n"))
    assert (done.returncode, job.source, job.path) == (0, f"file://{tmp_path}/a%20b%23.bin", "/x/y.bin")
    assert done.stderr == f"queued; to watch it: blobferry watch {job.id}\n"


def test_write_hands_every_option_on(variables: dict[str, str], client: Client, sqlite_site: Site) -> None:
    options = "--storage archive --no-overwrite --content-type video/mp4 --metadata a=b=c --metadata d= --label e=f"
    options += " --priority 7 --not-before 2031-01-01T00:00:00Z --deadline 2032-01-01T01:00:00+01:00"
    done = run(variables, "write", SOURCE, "/x", *options.split(), "--idempotency-key", "k", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    shown = {"storage": "archive", "labels": {"e": "f"}, "idempotency_key": "k", "run_at": "2031-01-01T00:00:00+00:00"}
    assert {name: said[name] for name in shown} == shown
    (row,) = sqlite_site.rows()
    assert (row["id"], row["priority"], row["deadline"]) == (said["id"], 7, datetime(2032, 1, 1, tzinfo=UTC))
    given = {"path": "/x", "source": SOURCE, "content_type": "video/mp4", "metadata": {"a": "b=c", "d": ""}}
    assert row["request"] == given | {"offset": 0, "overwrite": False}


def test_a_file_that_is_not_here_is_submitted_with_a_remark(variables: dict[str, str], sqlite_site: Site) -> None:
    done = run(variables, "write", "/nowhere/a.bin", "/x")
    assert (done.returncode, len(sqlite_site.rows())) == (0, 1)
    assert "/nowhere/a.bin does not exist here" in done.stderr


def test_a_broker_out_of_reach_is_a_remark(variables: dict[str, str], sqlite_site: Site) -> None:
    broker = {"BLOBFERRY_BROKER_URL": f"redis://:s3cret@127.0.0.1:{free_port()}/0"}
    done = run(variables | broker, "write", SOURCE, "/x", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"], len(sqlite_site.rows())) == (0, "queued", 1)
    assert re.fullmatch(r"note: message not published.*\n", done.stderr)
    assert "s3cret" not in done.stderr


# --- errors --------------------------------------------------------------------------------------------------------


def test_another_request_under_the_same_key_exits_2(variables: dict[str, str]) -> None:
    run(variables, "write", SOURCE, "/x", "--idempotency-key", "k")
    done = run(variables, "write", SOURCE, "/y", "--idempotency-key", "k", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (2, "conflict")


def test_an_error_in_json_is_the_only_thing_on_stdout(variables: dict[str, str]) -> None:
    done = run(variables, "status", "nobody", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {"error": "job_not_found", "message": "no job 'nobody'", "job_id": "nobody"}


def test_a_missing_variable_exits_2_and_is_named() -> None:
    done = run({}, "status", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "BLOBFERRY_DATABASE_URL" in done.stderr


# --- status and watch ----------------------------------------------------------------------------------------------


def test_status_says_in_words_and_in_local_time_where_a_job_is(variables: dict[str, str], client: Client) -> None:
    job = client.write_stream("/x", SOURCE, labels={"user": "5"}, not_before=datetime(2031, 1, 1, tzinfo=UTC))
    done = run(variables, "status", job.id)
    assert (done.returncode, done.stderr) == (0, "")
    words = r"queued: not before 2031-01-01 09:00 \(in \d+ d\)\nnext +then it waits for a free worker slot\n"
    assert re.search(words, done.stdout)
    submitted = f"{job.created_at.astimezone(UTC) + timedelta(hours=9):%Y-%m-%d %H:%M:%S} JST"
    for expected in (submitted, job.id, SOURCE, "/x on storage default", "user=5"):
        assert expected in done.stdout


def test_status_in_json_is_the_job_and_why(variables: dict[str, str], client: Client) -> None:
    job = client.write_stream("/x", SOURCE)
    done = run(variables, "status", job.id, "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, {**said, "seen_at": None}) == (0, {**said, **job.as_json(), "seen_at": None})
    assert (said["attempts"], said["uploads"], said["lease_expires_at"]) == ([], [], None)
    assert re.fullmatch(
        r"waits for a free worker slot, published \d+ s ago; no worker is alive .*", said["explanation"]
    )


def test_watch_in_json_prints_a_line_for_each_change(
    variables: dict[str, str], client: Client, sqlite_site: Site
) -> None:
    job = client.write_stream("/x", SOURCE)
    with start(variables, "watch", job.id, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "queued"
        sqlite_site.change(job, state="running", attempt=1)
        assert json.loads(process.stdout.readline())["state"] == "running"
        sqlite_site.change(job, state="failed", error_code="slow_down")
        assert json.loads(process.stdout.readline())["error_code"] == "slow_down"
        assert process.stdout.read() == ""
    assert process.returncode == 1


def test_waiting_too_long_exits_4_and_the_job_goes_on(variables: dict[str, str], client: Client) -> None:
    done = run(variables, "write", SOURCE, "/x", "--wait", "--timeout", "0.3", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["error"]) == (4, "timeout")
    assert client.get(said["job_id"]).state == "queued"
    done = run(variables, "watch", said["job_id"], "--timeout", "0")
    assert done.returncode == 4
    assert re.fullmatch(rf"blobferry: job {said['job_id']} is still queued .*\n", done.stderr)


def test_an_interrupted_watch_says_that_the_job_goes_on(variables: dict[str, str], client: Client) -> None:
    job = client.write_stream("/x", SOURCE)
    # Whoever started these tests in the background of a script has them ignore it.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with start(variables | {"PYTHONUNBUFFERED": "1"}, "watch", job.id, preexec_fn=heeds) as process:
        assert process.stdout is not None
        assert "queued" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == f"blobferry: interrupted; the job continues, show it with: blobferry status {job.id}\n"
    assert client.get(job.id).state == "queued"


def test_a_terminal_sees_a_countdown_and_why(variables: dict[str, str], client: Client, sqlite_site: Site) -> None:
    job = client.write_stream("/x", SOURCE)
    retrying = {"state": "retrying", "run_at": datetime.now(UTC) + timedelta(seconds=100)}
    retrying |= {"error_code": "slow_down", "error_message": "asks for fewer [red]requests"}
    steps: Iterator[tuple[str, dict[str, Any]]] = iter(
        [
            ("queued", {"state": "running", "attempt": 1, "size": 4 * MIB, "bytes_done": MIB}),
            ("25%", retrying),
            ("retrying at", {"state": "failed"}),
            ("never", {}),
        ]
    )
    step = next(steps)

    def act(screen: str) -> None:
        nonlocal step
        if step[0] in screen:
            sqlite_site.change(job, **step[1])
            step = next(steps)

    status, screen = run_on_a_terminal(variables, "watch", job.id, meanwhile=act)
    assert status == 1
    assert "1.0/4.0 MiB" in screen
    assert "attempt 1 ended: slow_down: asks for fewer [red]requests" in screen
    assert re.search(r"retrying at \S+ .*\(in \d+ s\)", screen)
    assert screen.rstrip().endswith("failed: slow_down: asks for fewer [red]requests")


# --- with a worker -------------------------------------------------------------------------------------------------


@pytest.fixture
def stack(valkey_server: Valkey, sqlite_site: Site, tmp_path: Path) -> Iterator[Stack]:
    settings = {"BLOBFERRY_TRANSFER__PART_SIZE": str(5 * MIB), "BLOBFERRY_TRANSFER__PART_THREADS": "1"}
    with moto() as s3:
        stack = Stack(sqlite_site.broker_url, sqlite_site.url, s3, tmp_path, settings=settings)
        stack.prepare()
        yield stack


def test_a_real_transfer_is_shown_on_a_terminal_in_a_pipe_and_in_json(stack: Stack) -> None:
    file = stack.incoming / "a b.bin"
    file.write_bytes(os.urandom(MIB) * 100)
    variables = stack.environment()
    no_retries = replace(stack, settings={**stack.settings, "BLOBFERRY_RETRY__MAX_ATTEMPTS": "1"})
    with no_retries.worker():
        status, screen = run_on_a_terminal(variables, "write", str(file), "/x", "--wait")
        assert status == 0
        assert re.search(r"uploading +[━╸╺ ]+ +\d+% +[\d.]+/100.0 MiB +[\d.]+ MiB/s +\d\d:\d\d", screen)
        assert re.search(r"succeeded: /x, 100.0 MiB in [\d.]+ s\s*$", screen)

        done = run(variables, "write", str(file), "/y", "--wait")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert re.fullmatch(r"succeeded: /y, 100.0 MiB in [\d.]+ s", lines[-1])
        assert all(re.match(r"\d\d:\d\d:\d\d  \w+", line) for line in lines[1:-1])
        assert "\x1b" not in done.stdout

        done = run(variables, "write", str(file), "/z", "--wait", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["state"] == "succeeded"

        done = run(variables, "write", "/etc/passwd", "/p", "--wait")
        assert done.returncode == 1
        assert re.fullmatch(r"failed: source_not_allowed: file:///etc/passwd: .*\n", done.stderr)
